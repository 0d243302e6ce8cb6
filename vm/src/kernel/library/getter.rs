//! What a small C function returns and stores through its arguments, read off its instructions.
//!
//! A function that only hands out constants has few instructions, and compilers differ in how they put them:
//! with a frame or without, by the global offset table or relative to the instruction. So they are followed
//! one by one, as a processor would, on values that are known, and nothing else is assumed; the first
//! instruction that does anything but move values about is an error.

use std::collections::HashMap;

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};

use super::Library;

/// What the function returns, and what it stores through its three arguments.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Results {
    pub returned: u64,
    pub outputs: [u64; 3],
}

/// More instructions than such a function has.
const MOST: usize = 64;

/// The registers of the first arguments, in their order (System V ABI for x86-64, 3.2.3).
const ARGUMENTS: [Register; 3] = [Register::RDI, Register::RSI, Register::RDX];

/// A value that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    /// A number, or an address in the library.
    Number(u64),
    /// One of the pointers that the caller gave.
    Argument(usize),
    /// So many bytes from where the stack was at the start.
    Stack(i64),
}

/// A place in memory.
enum Place {
    Library(u64),
    Argument(usize),
    Stack(i64),
}

struct State<'a> {
    library: &'a Library<'a>,
    registers: HashMap<Register, Value>,
    /// Words that the function has put on its stack.
    stack: HashMap<i64, Value>,
    outputs: [Option<u64>; 3],
}

/// Follows the function at `address`.
pub(super) fn run(library: &Library<'_>, address: u64) -> Result<Results, String> {
    let code = library.from(address).ok_or("lies outside of the file")?;
    let mut registers: HashMap<_, _> = ARGUMENTS
        .into_iter()
        .zip((0..).map(Value::Argument))
        .collect();
    registers.insert(Register::RSP, Value::Stack(0));
    let mut state = State {
        library,
        registers,
        stack: HashMap::new(),
        outputs: [None; 3],
    };
    let decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
    for instruction in decoder.into_iter().take(MOST) {
        if instruction.is_invalid() {
            break;
        }
        if instruction.mnemonic() == Mnemonic::Ret {
            return state.results();
        }
        state.step(&instruction).ok_or_else(|| {
            format!(
                "does more than to return numbers ({:?} at {:#x}); this library is not known here",
                instruction.code(),
                instruction.ip()
            )
        })?;
    }
    Err("does not end".into())
}

impl State<'_> {
    fn results(&self) -> Result<Results, String> {
        let Some(&Value::Number(returned)) = self.registers.get(&Register::RAX) else {
            return Err("returns nothing that is known".into());
        };
        let [Some(load), Some(entry), Some(size)] = self.outputs else {
            return Err("does not fill all its arguments".into());
        };
        let outputs = [load, entry, size];
        Ok(Results { returned, outputs })
    }

    /// Does one instruction. `None`: it is none of those that are known, or works on something unknown.
    fn step(&mut self, i: &Instruction) -> Option<()> {
        match i.mnemonic() {
            Mnemonic::Endbr64 | Mnemonic::Nop => Some(()),
            Mnemonic::Mov => {
                let value = self.read(i, 1)?;
                self.write(i, value)
            }
            Mnemonic::Lea => {
                let value = match self.place(i)? {
                    Place::Library(address) => Value::Number(address),
                    Place::Argument(n) => Value::Argument(n),
                    Place::Stack(at) => Value::Stack(at),
                };
                self.write(i, value)
            }
            Mnemonic::Xor => {
                let same = i.op1_kind() == OpKind::Register
                    && i.op0_kind() == OpKind::Register
                    && i.op0_register() == i.op1_register();
                same.then_some(())?;
                self.write(i, Value::Number(0))
            }
            Mnemonic::Add | Mnemonic::Sub => {
                let (Value::Stack(at), Value::Number(n)) = (self.read(i, 0)?, self.read(i, 1)?)
                else {
                    return None;
                };
                let n = n as i64;
                let at = match i.mnemonic() {
                    Mnemonic::Add => at.checked_add(n)?,
                    _ => at.checked_sub(n)?,
                };
                self.write(i, Value::Stack(at))
            }
            Mnemonic::Push => {
                let value = self.read_any(i);
                self.push(value)
            }
            Mnemonic::Pop => {
                let value = self.pop()?;
                self.write_any(i, value)
            }
            Mnemonic::Leave => {
                let frame = self.registers.get(&Register::RBP).copied()?;
                self.registers.insert(Register::RSP, frame);
                let saved = self.pop()?;
                self.set(Register::RBP, saved);
                Some(())
            }
            _ => None,
        }
    }

    /// The value of an operand of 64 bits, or of a number that is extended to as many.
    fn read(&self, i: &Instruction, operand: u32) -> Option<Value> {
        match i.op_kind(operand) {
            OpKind::Register => {
                let register = i.op_register(operand);
                let value = self.registers.get(&register.full_register()).copied()?;
                match (register.size(), value) {
                    (8, _) => Some(value),
                    (4, Value::Number(n)) => Some(Value::Number(n & u64::from(u32::MAX))),
                    _ => None,
                }
            }
            OpKind::Memory => match (self.place(i)?, i.memory_size().size()) {
                (Place::Stack(at), 8) => self.stack.get(&at).copied(),
                (Place::Library(address), 8) => self.library.word(address).map(Value::Number),
                _ => None,
            },
            _ => Some(Value::Number(i.try_immediate(operand).ok()?)),
        }
    }

    /// Sets the first operand. A register of 32 bits loses its upper half.
    fn write(&mut self, i: &Instruction, value: Value) -> Option<()> {
        match i.op0_kind() {
            OpKind::Register => {
                let register = i.op0_register();
                let value = match (register.size(), value) {
                    (8, _) => value,
                    (4, Value::Number(n)) => Value::Number(n & u64::from(u32::MAX)),
                    _ => return None,
                };
                self.registers.insert(register.full_register(), value);
            }
            OpKind::Memory => match (self.place(i)?, i.memory_size().size(), value) {
                (Place::Stack(at), 8, _) => {
                    self.stack.insert(at, value);
                }
                (Place::Argument(n), 8, Value::Number(number)) => {
                    *self.outputs.get_mut(n)? = Some(number);
                }
                _ => return None,
            },
            _ => return None,
        }
        Some(())
    }

    /// Where the operand in memory is.
    fn place(&self, i: &Instruction) -> Option<Place> {
        if i.is_ip_rel_memory_operand() {
            return Some(Place::Library(i.ip_rel_memory_address()));
        }
        if i.memory_index() != Register::None || i.segment_prefix() != Register::None {
            return None;
        }
        let displacement = i.memory_displacement64();
        match self.registers.get(&i.memory_base()).copied()? {
            Value::Number(n) => Some(Place::Library(n.wrapping_add(displacement))),
            Value::Stack(at) => Some(Place::Stack(at.checked_add(displacement as i64)?)),
            Value::Argument(n) => (displacement == 0).then_some(Place::Argument(n)),
        }
    }

    /// What is pushed: registers that the caller keeps hold nothing that is known.
    fn read_any(&self, i: &Instruction) -> Option<Value> {
        match i.op0_kind() {
            OpKind::Register => self.registers.get(&i.op0_register()).copied(),
            _ => self.read(i, 0),
        }
    }

    fn write_any(&mut self, i: &Instruction, value: Option<Value>) -> Option<()> {
        (i.op0_kind() == OpKind::Register).then(|| self.set(i.op0_register(), value))
    }

    fn set(&mut self, register: Register, value: Option<Value>) {
        match value {
            Some(value) => self.registers.insert(register, value),
            None => self.registers.remove(&register),
        };
    }

    fn push(&mut self, value: Option<Value>) -> Option<()> {
        let at = self.top()?.checked_sub(8)?;
        match value {
            Some(value) => self.stack.insert(at, value),
            None => self.stack.remove(&at),
        };
        self.registers.insert(Register::RSP, Value::Stack(at));
        Some(())
    }

    /// The word on top of the stack, if it is known.
    fn pop(&mut self) -> Option<Option<Value>> {
        let at = self.top()?;
        let above = Value::Stack(at.checked_add(8)?);
        self.registers.insert(Register::RSP, above);
        Some(self.stack.get(&at).copied())
    }

    fn top(&self) -> Option<i64> {
        match self.registers.get(&Register::RSP) {
            Some(&Value::Stack(at)) => Some(at),
            _ => None,
        }
    }
}
