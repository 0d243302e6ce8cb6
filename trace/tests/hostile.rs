//! Whatever a program passes to its calls, they are decoded: without a panic, and in bounded text.

use duet_intercept::{ARCH_X86_64, Call, Tid};
use duet_syscalls::table;
use duet_trace::decode::{Args, Decoder};
use duet_trace::structs::Memory;

/// Numbers that are the same in each run (an xorshift generator).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// One that programs get wrong.
    fn odd(&mut self, memory: &[u64]) -> u64 {
        let inside = memory.as_ptr() as u64 + self.next() % (8 * memory.len() as u64);
        match self.next() % 12 {
            0 => 0,
            1 => u64::MAX,
            2 => i64::MAX as u64,
            3 => i64::MIN as u64,
            4 => u64::from(u32::MAX),
            5 => self.next() % 16,
            6 => self.next() % 4096,
            7 => 1 << (self.next() % 64),
            8 => self.next(),
            // The last bytes of a page that nothing follows may be among them.
            9 => inside & !0xfff | 0xff8,
            _ => inside,
        }
    }
}

#[test]
fn every_call_with_any_arguments() {
    const ROUNDS: usize = 150;
    let mut numbers = Numbers(0x4475_6574);
    // Words that lead on: pointers into itself, small numbers, anything.
    let mut memory = vec![0u64; 4096];
    let tid = Tid(std::process::id() as i32);
    let name_of = |_: Tid, fd: i32| (fd % 2 == 0).then(|| "<name>".to_owned());
    for round in 0..ROUNDS {
        for i in 0..memory.len() {
            memory[i] = numbers.odd(&memory);
        }
        for row in table::rows() {
            let call = Call {
                id: 1,
                tid,
                arch: ARCH_X86_64,
                nr: row.nr,
                args: std::array::from_fn(|_| numbers.odd(&memory)),
                ip: 0,
            };
            let mut decoder = Decoder {
                call: &call,
                row,
                memory: Memory {
                    tid,
                    limit: [0, 32, 4096][round % 3],
                    full: round % 2 == 0,
                    name_of: (round % 5 == 0).then_some(&name_of),
                },
                before: 0,
            };
            decoder.before = decoder.before();
            let result = match numbers.next() % 4 {
                0 => -(numbers.next() as i64 % 600).abs(),
                1 => numbers.next() as i64 % 64,
                2 => numbers.next() as i64,
                _ => 0,
            };
            let (mut args, mut text) = (Args::default(), String::new());
            let known = decoder.known_at_entry();
            decoder.args(&mut args, 0, known, None);
            let result = (round % 7 != 0).then_some(result);
            decoder.args(&mut args, known, row.args.len(), result);
            decoder.result(&mut text, result.unwrap_or(0));
            assert!(args.each().count() <= 7 && !text.is_empty(), "{}", row.name);
            assert!(
                args.text.is_ascii() && text.is_ascii(),
                "{}: {}",
                row.name,
                args.text
            );
            assert!(
                args.text.len() < 40 << 20,
                "{}: {} bytes",
                row.name,
                args.text.len()
            );
        }
    }
}
