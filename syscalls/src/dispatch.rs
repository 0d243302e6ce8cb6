//! From an intercepted call to its handler, and its answer back.

use std::os::fd::AsFd;
use std::sync::Arc;

use duet_intercept::{ARCH_X86_64, Answer, Call};
use duet_vfs::account;
use duet_vfs::types::{Errno, Result};

use crate::accounts;
use crate::agents;
use crate::handlers;
use crate::kernel::Kernel;
use crate::process::serving;
use crate::table::{self, Verdict, places::Place};
use crate::task::{Reply, Task};

/// What answers refused calls.
pub(crate) const REFUSES: Place = Place {
    file: file!(),
    function: "refuse",
};

/// Bit of call numbers of the x32 interface.
const X32_BIT: u32 = 0x4000_0000;

/// Handles one call.
pub fn handle(kernel: &Arc<Kernel>, call: Call) {
    // The private number lies where x32's do, so that no kernel will ever give it a meaning.
    let from_stub = call.arch == ARCH_X86_64 && call.nr == duet_loader::stub::STUB_NR;
    if !from_stub && (call.arch != ARCH_X86_64 || call.nr & X32_BIT != 0) {
        kernel.counters.count_foreign();
        return refuse(kernel, &call, Errno::ENOSYS);
    }
    let handler = if from_stub {
        handlers::exec::stub_report
    } else {
        let verdict = table::verdict(call.arch, call.nr, &call.args);
        kernel.counters.count(call.nr, verdict);
        match (verdict, handlers::of(call.nr)) {
            (Verdict::Native, _) => return send(kernel, &call, Answer::Run),
            (Verdict::Refused(e), _) => return refuse(kernel, &call, e),
            (Verdict::Emulated, Some(handler)) => handler,
            // A test holds that every emulated call has a handler.
            (Verdict::Emulated, None) => return refuse(kernel, &call, Errno::ENOSYS),
        }
    };
    let process = match kernel.processes.of_thread(call.tid) {
        Ok(p) => p,
        // It died between call and look-up: nobody waits for the answer.
        Err(e) => return refuse(kernel, &call, e),
    };
    process.notice_exec();
    if !from_stub {
        process.forget_failed_exec(call.tid);
    }
    let held = process.take_held();
    let state = process.state();
    let task = Task {
        kernel: kernel.clone(),
        process,
        state,
        call,
        staged: None,
    };
    account::begin();
    if let Some(held) = held {
        handlers::exec::give_back(&task, held);
    }
    let result = match agents::take_owed(&task) {
        Some(owed) => Ok(owed),
        None => serving(&task.process, || handler(&task)),
    };
    finish(&task, result);
}

fn refuse(kernel: &Kernel, call: &Call, errno: Errno) {
    send(kernel, call, Answer::Error(errno));
}

fn send(kernel: &Kernel, call: &Call, answer: Answer) {
    match kernel.engine.answer(call, answer) {
        Ok(()) | Err(Errno::ESRCH) => (),
        Err(e) => log::error!("call {} of thread {}: no answer: {e}", call.nr, call.tid.0),
    }
}

/// Answers a call with its handler's result.
pub fn finish(task: &Task, result: Result<Reply>) {
    let (kernel, call) = (&task.kernel, &task.call);
    if log::log_enabled!(log::Level::Trace) {
        trace(call, &result);
    }
    accounts::hand_in(call);
    let answer = match result {
        Ok(Reply::Value(v)) => Some(Answer::Value(v)),
        Err(e) => Some(Answer::Error(e)),
        _ => None,
    };
    if let Some(answer) = answer
        && agents::answered(task, answer)
    {
        return;
    }
    match result {
        Ok(Reply::Value(v)) => send(kernel, call, Answer::Value(v)),
        Ok(Reply::Run) => send(kernel, call, Answer::Run),
        Ok(Reply::Interrupt) => send(kernel, call, Answer::Interrupt),
        Ok(Reply::Deferred) => (),
        Err(e) => send(kernel, call, Answer::Error(e)),
        Ok(Reply::Descriptor { fd, cloexec }) if agents::gives_descriptor(task) => {
            let number = kernel.engine.inject(call, fd.as_fd(), None, cloexec);
            drop(fd);
            let answer = match number {
                Ok(number) => Answer::Value(number.into()),
                Err(e) => Answer::Error(e),
            };
            if !agents::answered(task, answer) {
                send(kernel, call, answer);
            }
        }
        Ok(Reply::Descriptor { fd, cloexec }) => {
            match kernel.engine.answer_with_descriptor(call, fd, cloexec) {
                Ok(_) | Err(Errno::ESRCH) => (),
                // The caller's table is full (EMFILE), or the like.
                Err(e) => send(kernel, call, Answer::Error(e)),
            }
        }
    }
}

fn trace(call: &Call, result: &Result<Reply>) {
    let name = table::lookup(call.nr).map_or("?", |r| r.name);
    let text = match result {
        Ok(Reply::Value(v)) => v.to_string(),
        Ok(Reply::Run) => "run".into(),
        Ok(Reply::Interrupt) => "interrupted".into(),
        Ok(Reply::Deferred) => "later".into(),
        Ok(Reply::Descriptor { .. }) => "descriptor".into(),
        Err(e) => format!("-{e}"),
    };
    log::trace!("[{}] {name}({:x?}) = {text}", call.tid.0, call.args);
}
