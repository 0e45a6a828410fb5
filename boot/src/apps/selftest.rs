//! Ways to end badly, so that whoever started the machine can be seen to tell them apart.
//!
//! Four have names of their own; `crash how=...` has all that [`crate::crash`] knows.

use kernel::trace::cmdline::Cmdline;

use super::{App, AppError, AppResult, System, app};
use crate::crash;

macro_rules! apps {
    ($($slot:ident $name:literal $how:literal;)*) => {$(
        app!($slot = App { name: $name, summary: "", run: |_, _| end_by($how) });
    )*};
}

apps! {
    PANIC "panic" "panic";
    TRIPLE_FAULT "triple-fault" "triple";
    HANG "hang" "hang";
    STACK_OVERFLOW "stack-overflow" "stack";
    PROTECTION "gp" "protection";
}

app!(
    CRASH = App {
        name: "crash",
        summary: "",
        run: crash_app,
    }
);

fn crash_app(cmdline: &Cmdline<'static>, _: &'static System) -> AppResult {
    cmdline.allow(&["how"])?;
    end_by(cmdline.required("how")?)
}

fn end_by(how: &str) -> AppResult {
    crash::by(how);
    Err(AppError::Usage(alloc::format!(
        "there is no way to crash called `{how}`, or it was survived"
    )))
}
