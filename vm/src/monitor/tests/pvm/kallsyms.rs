//! Addresses of a kernel's functions, from the table in its image (Linux's `scripts/kallsyms.c`).
//!
//! Nothing says where the table lies; it is found by its form. Its parts follow one another, each aligned to
//! eight bytes, as they do since Linux 6.4: the number of names, the names, a marker for each 256th of them,
//! the tokens that names are made of, an index of these, and the addresses.

use std::collections::HashMap;

/// Tokens: as many as a byte has values.
const TOKENS: usize = 256;
/// Names between two markers.
const STRIDE: usize = 256;

/// Names and addresses of an image.
pub struct Symbols(HashMap<String, u64>);

impl Symbols {
    /// Finds the table in `image`, a kernel as it lies in memory. `None`: there is none.
    pub fn find(image: &[u8]) -> Option<Symbols> {
        let tokens = Tokens::find(image)?;
        let names = names(image, &tokens)?;
        // Addresses are distances below a base; those that are not negative are addresses themselves.
        let at = tokens.end;
        let offsets = image.get(at..at + 4 * names.len())?;
        let base = u64::from_le_bytes(array(image, align(at + offsets.len()))?);
        let address = |offset: i32| match u64::try_from(offset) {
            Ok(address) => address,
            Err(_) => base.wrapping_add(u64::from(offset.unsigned_abs()) - 1),
        };
        let addresses = offsets
            .chunks_exact(4)
            .map(|o| address(i32::from_le_bytes([o[0], o[1], o[2], o[3]])));
        // The first character is the kind.
        let name =
            |n: Vec<u8>| String::from_utf8_lossy(n.get(1..).unwrap_or_default()).into_owned();
        Some(Symbols(
            names.into_iter().map(name).zip(addresses).collect(),
        ))
    }

    /// Where `name` is.
    pub fn get(&self, name: &str) -> Option<u64> {
        self.0.get(name).copied()
    }
}

/// The strings that bytes of names stand for.
struct Tokens {
    /// Where they begin.
    start: usize,
    /// Where their index ends.
    end: usize,
    strings: Vec<Vec<u8>>,
}

impl Tokens {
    fn find(image: &[u8]) -> Option<Tokens> {
        // Digits occur in names, so the code of each stands for itself.
        const DIGITS: &[u8] = b"0\x001\x002\x003\x004\x005\x006\x007\x008\x009\x00";
        let mut places = image.windows(DIGITS.len()).enumerate();
        places.find_map(|(at, bytes)| match bytes == DIGITS {
            true => Tokens::around(image, at),
            false => None,
        })
    }

    /// The table in which the token of the digit 0 is at `zero`, if there is one.
    fn around(image: &[u8], zero: usize) -> Option<Tokens> {
        const ZERO: usize = b'0' as usize;
        let rest = image.get(zero..)?;
        let strings = rest.split(|&b| b == 0).take(TOKENS - ZERO);
        let end = zero + strings.map(|s| s.len() + 1).sum::<usize>();
        let index_at = align(end);
        let index: Vec<usize> = image
            .get(index_at..index_at + 2 * TOKENS)?
            .chunks_exact(2)
            .map(|o| usize::from(u16::from_le_bytes([o[0], o[1]])))
            .collect();
        let start = zero.checked_sub(*index.get(ZERO)?)?;
        let mut strings = Vec::new();
        let mut at = start;
        for offset in index {
            if start + offset != at {
                return None;
            }
            let string = image.get(at..)?.split(|&b| b == 0).next()?;
            at += string.len() + 1;
            strings.push(string.to_vec());
        }
        Some(Tokens {
            start,
            end: index_at + 2 * TOKENS,
            strings,
        })
    }
}

/// All names, which lie before `tokens`.
fn names(image: &[u8], tokens: &Tokens) -> Option<Vec<Vec<u8>>> {
    let word = |at: usize| Some(u32::from_le_bytes(array(image, at)?) as usize);
    // The first marker is 0, the others ascend; behind them may be padding.
    let mut first = tokens.start.checked_sub(4)?;
    let mut last = word(first)?;
    if last == 0 {
        first = first.checked_sub(4)?;
        last = word(first)?;
    }
    let mut count = 1;
    while word(first)? != 0 {
        first = first.checked_sub(4)?;
        count += 1;
    }
    // Their number stands eight bytes before the names; the last block of them has an unknown length.
    const LONGEST_BLOCK: usize = STRIDE * 512;
    let latest = first.checked_sub(last)?;
    let mut starts = (latest.saturating_sub(LONGEST_BLOCK)..=latest).rev();
    starts.find_map(|start| {
        let number = u64::from_le_bytes(array(image, start.checked_sub(8)?)?);
        if start % 8 != 0 || number.div_ceil(STRIDE as u64) != count {
            return None;
        }
        let mut at = start;
        let mut all = Vec::new();
        for _ in 0..number {
            all.push(name(image, &mut at, tokens).filter(|n| !n.is_empty() && at <= first)?);
        }
        (align(at) == first).then_some(all)
    })
}

/// The name at `at`, which is moved behind it.
fn name(image: &[u8], at: &mut usize, tokens: &Tokens) -> Option<Vec<u8>> {
    let mut len = usize::from(*image.get(*at)?);
    *at += 1;
    if len & 0x80 != 0 {
        len = len & 0x7f | usize::from(*image.get(*at)?) << 7;
        *at += 1;
    }
    let codes = image.get(*at..*at + len)?;
    *at += len;
    let mut name = Vec::new();
    for code in codes {
        name.extend_from_slice(tokens.strings.get(usize::from(*code))?);
    }
    Some(name)
}

fn array<const N: usize>(image: &[u8], at: usize) -> Option<[u8; N]> {
    image.get(at..at + N)?.try_into().ok()
}

fn align(at: usize) -> usize {
    at.next_multiple_of(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table of `names`, which are spelled out but for those that begin with `Tlong_`, with their
    /// distances to 0xffff_ffff_8100_0000.
    fn table(names: &[(String, i32)]) -> Vec<u8> {
        let pad = |image: &mut Vec<u8>| image.resize(align(image.len()), 0);
        let mut image = b"what is before".to_vec();
        pad(&mut image);
        image.extend_from_slice(&(names.len() as u64).to_le_bytes());
        let start = image.len();
        let mut markers = Vec::new();
        for (i, (name, _)) in names.iter().enumerate() {
            if i % STRIDE == 0 {
                markers.push((image.len() - start) as u32);
            }
            let codes = match name.strip_prefix("Tlong_") {
                Some(rest) => [&[1], rest.as_bytes()].concat(),
                None => name.as_bytes().to_vec(),
            };
            match u8::try_from(codes.len()) {
                Ok(len @ ..0x80) => image.push(len),
                _ => {
                    image.push(codes.len() as u8 & 0x7f | 0x80);
                    image.push((codes.len() >> 7) as u8);
                }
            }
            image.extend_from_slice(&codes);
        }
        pad(&mut image);
        for marker in markers {
            image.extend_from_slice(&marker.to_le_bytes());
        }
        pad(&mut image);
        let tokens = image.len();
        let mut index = Vec::new();
        for code in 0..=u8::MAX {
            index.extend_from_slice(&((image.len() - tokens) as u16).to_le_bytes());
            match code {
                0 => image.extend_from_slice(b"unused"),
                1 => image.extend_from_slice(b"Tlong_"),
                _ => image.push(code),
            }
            image.push(0);
        }
        pad(&mut image);
        image.extend_from_slice(&index);
        for (_, offset) in names {
            image.extend_from_slice(&offset.to_le_bytes());
        }
        pad(&mut image);
        image.extend_from_slice(&0xffff_ffff_8100_0000u64.to_le_bytes());
        image
    }

    #[test]
    fn symbols_are_found_in_an_image() {
        for count in [3, 255, 256, 257, 700] {
            let mut names = vec![
                ("Apercpu".to_owned(), 0x6000),
                ("T_text".to_owned(), -1),
                (format!("Tlong_{}", "x".repeat(200)), -0x10_0001),
            ];
            names.extend((3..count).map(|n| (format!("tname{n}"), -0x2001 - n)));
            let mut image = table(&names);
            let symbols = Symbols::find(&image).unwrap();
            let base = 0xffff_ffff_8100_0000;
            assert_eq!(symbols.get("percpu"), Some(0x6000));
            assert_eq!(symbols.get("_text"), Some(base));
            let long = format!("long_{}", "x".repeat(200));
            assert_eq!(symbols.get(&long), Some(base + 0x10_0000));
            let last = format!("name{}", count - 1);
            let expected = (count > 3).then_some(base + 0x2000 + count as u64 - 1);
            assert_eq!(symbols.get(&last), expected);
            assert_eq!(symbols.get("name"), None);
            // One that is cut short has none.
            image.truncate(image.len() - 1);
            assert!(Symbols::find(&image).is_none());
        }
        assert!(Symbols::find(&[]).is_none());
        assert!(Symbols::find(&[0; 4096]).is_none());
    }
}
