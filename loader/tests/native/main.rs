//! The loader against real programs and the real kernel: what it runs through the stub, without the
//! rest of Duet, has to behave as it does natively, and what Linux refuses it has to refuse alike.

mod harness;
mod odd;
mod programs;
