//! The loader on arbitrary files and stacks: it may refuse them, it may not panic or loop, and what
//! it plans stays inside the address space.
use duet_loader::{
    Ids, Image, LoadError, PAGE_SIZE, Plan, Script, StackFix, Step, TASK_SIZE, encode, records_for,
    rewrite_stack, stub::BUFFER_SIZE,
};

/// One input: eight bytes that choose addresses, then a file.
pub fn run(data: &[u8]) {
    let (seed, data) = data.split_at(data.len().min(8));
    let seed = seed.iter().fold(0, |seed, &b| seed << 8 | u64::from(b));
    let len = data.len() as u64;

    if let Ok(Some(script)) = Script::parse(data) {
        assert!(script.interpreter.len() < 256);
        assert_eq!(
            script.argv(b"path").len(),
            2 + usize::from(script.argument.is_some())
        );
    }
    let image = Image::parse(data, len);
    let interpreter = Image::parse_interpreter(data, len);
    for error in [image.as_ref().err(), interpreter.as_ref().err()]
        .into_iter()
        .flatten()
    {
        describe(error);
    }
    let Ok(image) = image else { return };
    image.truncated_segment();
    let mut random = || seed;
    for aslr in [true, false] {
        let aslr: Option<&mut dyn FnMut() -> u64> = if aslr { Some(&mut random) } else { None };
        match Plan::new(&image, interpreter.as_ref().ok(), aslr) {
            Ok(plan) => check(
                &plan,
                data.get(512..).unwrap_or_default(),
                seed & 0x7fff_ffff_fff8,
            ),
            Err(error) => describe(&error),
        }
    }
}

fn describe(error: &LoadError) {
    assert!(!error.to_string().is_empty());
    assert!(error.errno() as i32 > 0);
}

fn check(plan: &Plan, block: &[u8], rsp: u64) {
    for step in &plan.steps {
        match *step {
            Step::File { addr, len, .. } | Step::Anonymous { addr, len, .. } => {
                assert!(addr % PAGE_SIZE == 0 && len % PAGE_SIZE == 0 && len > 0);
                assert!(addr.checked_add(len).is_some_and(|end| end <= TASK_SIZE));
            }
            Step::Zero { addr, len } => {
                assert!(len > 0 && addr % PAGE_SIZE + len == PAGE_SIZE);
            }
        }
    }
    assert!(plan.entry < TASK_SIZE);
    let prefix = [b"interpreter".to_vec(), block.to_vec()];
    for argv_prefix in [&prefix[..], &[]] {
        let fix = StackFix {
            plan,
            ids: Ids::default(),
            execfn: block,
            argv_prefix,
            comm: block,
        };
        if let Ok(stack) = rewrite_stack(block, rsp, &fix) {
            assert_eq!(stack.rsp % 16, 0);
            let records = records_for(plan, 3, Some(4), &stack, false);
            assert!(encode(&records).len() as u64 <= BUFFER_SIZE);
        }
    }
}
