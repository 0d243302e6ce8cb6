//! What the fuzz targets do with an input, as plain functions, so that tests can do it too.

pub mod files;
pub mod loader;
mod site;
pub mod virtio;
pub mod walk;

#[cfg(test)]
mod tests {
    /// Calls `run` with `count` random inputs of up to `max` bytes.
    fn inputs(count: u64, max: u64, run: fn(&[u8])) {
        let seeds = std::env::var("DUET_SEEDS")
            .ok()
            .and_then(|s| s.parse().ok());
        for seed in 1..=seeds.unwrap_or(count) {
            // xorshift64*
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut next = || {
                state ^= state >> 12;
                state ^= state << 25;
                state ^= state >> 27;
                state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
            };
            let len = next() % max;
            let input: Vec<u8> = (0..len).map(|_| next() as u8).collect();
            let caught = std::panic::catch_unwind(|| run(&input));
            assert!(caught.is_ok(), "seed {seed}, input {input:?}");
        }
    }

    #[test]
    fn random_files_to_the_loader() {
        inputs(20_000, 4096, crate::loader::run);
    }

    #[test]
    fn elf_headers_to_the_loader() {
        inputs(20_000, 1024, |data| {
            let mut file = vec![0; 8];
            file.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0");
            // Entry, program headers right behind the header, one to four of them.
            file.extend_from_slice(&0x40_1000u64.to_le_bytes());
            file.extend_from_slice(&64u64.to_le_bytes());
            file.extend_from_slice(&[0; 8 + 4]);
            let count = 1 + data.first().copied().unwrap_or(0) % 4;
            file.extend_from_slice(&[64, 0, 56, 0, count, 0, 64, 0, 0, 0, 0, 0]);
            for header in data.chunks(16).take(count.into()) {
                let small = |i: usize| u64::from(header.get(i).copied().unwrap_or(0));
                let kinds = [1u32, 1, 1, 2, 3, 4, 6, 7];
                file.extend_from_slice(&kinds[small(0) as usize % kinds.len()].to_le_bytes());
                file.extend_from_slice(&(small(1) as u32 & 7).to_le_bytes());
                for field in [small(2) << 8, 0x40_0000 + (small(3) << 8), 0, small(4) << 4] {
                    file.extend_from_slice(&field.to_le_bytes());
                }
                file.extend_from_slice(&(small(5) << 4).to_le_bytes());
                file.extend_from_slice(&(1u64 << (small(6) % 16)).to_le_bytes());
            }
            file.extend_from_slice(data);
            crate::loader::run(&file);
        });
    }

    #[test]
    fn random_operations_on_the_tree() {
        inputs(3_000, 1500, crate::walk::run);
    }

    #[test]
    fn random_requests_to_the_file_server() {
        inputs(1_000, 3000, crate::files::run);
    }

    #[test]
    fn random_drivers_of_virtio_devices() {
        inputs(1_000, 2000, crate::virtio::run);
    }
}
