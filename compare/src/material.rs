//! What workloads work on: sources and documents, the same on every machine.

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::Path;

/// Documents, in directories of ten.
const DOCUMENTS: u32 = 400;
/// Most words of one.
const WORDS: u32 = 2_000;

/// A sequence of numbers that looks like chance and is always the same (Knuth's linear generator).
struct Sequence(u64);

impl Sequence {
    /// The next number below `end`.
    fn below(&mut self, end: u32) -> u32 {
        let next = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = next.wrapping_add(1_442_695_040_888_963_407);
        // The high half is the better one.
        ((self.0 >> 32) % u64::from(end.max(1))) as u32
    }
}

/// Writes all into a directory, which is there and empty.
///
/// # Errors
/// The file system's.
pub fn write(dir: &Path) -> io::Result<()> {
    let hello = "#include <stdio.h>\nint main(void) { return puts(\"hello\") < 0; }\n";
    fs::write(dir.join("hello.c"), hello)?;
    fs::write(dir.join("thousand.c"), thousand_lines())?;
    let mut numbers = Sequence(1);
    let words: Vec<String> = (0..800).map(|_| word(&mut numbers)).collect();
    for i in 0..DOCUMENTS {
        let place = dir.join(format!("docs/chapter{}", i / 10));
        fs::create_dir_all(&place)?;
        let name = place.join(format!("page{i}.txt"));
        fs::write(name, document(&words, &mut numbers))?;
    }
    Ok(())
}

/// A C file of so many lines, with functions that call one another.
fn thousand_lines() -> String {
    let mut text = String::from("#include <stdio.h>\nstatic int f0(int x) { return x; }\n");
    for n in 1..200 {
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "static int f{n}(int x)\n{{\n    int y = f{}(x + {n}) * {n};\n    return y ^ (y >> {});\n}}\n",
            n / 2,
            n % 7 + 1
        );
    }
    text + "int main(void)\n{\n    return printf(\"%d\\n\", f199(1)) < 0;\n}\n"
}

fn word(numbers: &mut Sequence) -> String {
    let parts = ["ba", "ne", "ti", "mo", "lu", "ker", "sys", "a", "er", "in"];
    let length = 1 + numbers.below(4);
    let part = |_| {
        parts
            .get(numbers.below(10) as usize)
            .copied()
            .unwrap_or("x")
    };
    (0..length).map(part).collect()
}

fn document(words: &[String], numbers: &mut Sequence) -> String {
    let mut text = String::new();
    for n in 1..=1 + numbers.below(WORDS) {
        // Some words are far more frequent than others, as in a language.
        let most = 1 + numbers.below(words.len() as u32);
        let at = numbers.below(most) as usize;
        text += words.get(at).map_or("", |w| w);
        text.push(if n % 12 == 0 { '\n' } else { ' ' });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_same_each_time_and_of_the_size_that_is_told() {
        let make = || {
            let dir = tempfile::tempdir().unwrap();
            write(dir.path()).unwrap();
            let mut all = Vec::new();
            crate::tree::walk(dir.path(), &mut |found| {
                if found.metadata.is_file() {
                    all.push((found.relative.to_owned(), fs::read(found.path).unwrap()));
                }
            })
            .unwrap();
            all.sort();
            all
        };
        let (a, b) = (make(), make());
        assert_eq!(a, b);
        assert_eq!(a.len(), DOCUMENTS as usize + 2);
        let bytes: usize = a.iter().map(|(_, text)| text.len()).sum();
        assert!((1 << 20..8 << 20).contains(&bytes), "{bytes}");
        let lines = thousand_lines().lines().count();
        assert!((995..=1005).contains(&lines), "{lines}");
    }
}
