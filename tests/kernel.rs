//! The tests inside the image, as ordinary tests: `qemu-pvh::uffd::copy_fills_the_page ... ok`.
//!
//! Each machine is booted when the first of its tests is asked for. Which machines there are is said by the variable
//! `FAULTLINE_MACHINES`; without it, those whose emulator is installed.

use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use faultline_tests::{Results, list, run};
use libtest_mimic::{Arguments, Failed, Trial};
use xtask::cmd::test::{MACHINES_VAR, TestMachine};
use xtask::elf::Kernel;
use xtask::interrupt;
use xtask::machine::Machine;

/// The trial that looks at how the machine ended.
const CLOSING: &str = "closes_the_run_with_a_fitting_verdict";

/// A machine with its results, once it has run.
struct Bench {
    kernel: Kernel,
    machine: Box<dyn Machine + Send + Sync>,
    known: Vec<String>,
    filter: Option<String>,
    results: OnceLock<Results>,
}

impl Bench {
    fn results(&self) -> &Results {
        self.results.get_or_init(|| {
            run(
                &self.kernel,
                self.machine.as_ref(),
                &self.known,
                self.filter.as_deref(),
            )
        })
    }

    fn test(&self, name: &str) -> Result<(), Failed> {
        match self.results().tests.get(name) {
            Some(outcome) => outcome.clone().map_err(Failed::from),
            None => Err("it never ran".into()),
        }
    }

    fn closing(&self) -> Result<(), Failed> {
        match &self.results().closing {
            Some(outcome) => outcome.clone().map_err(Failed::from),
            None => Err("the machine was never booted".into()),
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    match interrupt::install()
        .map_err(anyhow::Error::from)
        .and_then(|()| trials(&arguments))
    {
        Ok(trials) => libtest_mimic::run(&arguments, trials).exit_code(),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn trials(arguments: &Arguments) -> anyhow::Result<Vec<Trial>> {
    let machines = machines()?;
    anyhow::ensure!(
        !machines.is_empty(),
        "no machine to test on; `cargo xtask setup` installs the emulators"
    );
    let kernel = Kernel::build()?;
    let known = list(&kernel, machines[0].as_ref())?;
    anyhow::ensure!(!known.is_empty(), "the image holds no test");
    let benches = machines.into_iter().map(|machine| {
        let filter = arguments
            .filter
            .as_deref()
            .and_then(|filter| kernel_filter(filter, &machine.name()));
        let (kernel, known) = (kernel.clone(), known.clone());
        Arc::new(Bench {
            kernel,
            machine,
            known,
            filter,
            results: OnceLock::new(),
        })
    });
    Ok(benches.flat_map(|bench| trials_of(&bench)).collect())
}

fn trials_of(bench: &Arc<Bench>) -> Vec<Trial> {
    let machine = bench.machine.name();
    let mut trials: Vec<Trial> = bench
        .known
        .iter()
        .map(|name| {
            let (bench, name) = (Arc::clone(bench), name.clone());
            Trial::test(format!("{machine}::{name}"), move || bench.test(&name))
        })
        .collect();
    let bench = Arc::clone(bench);
    trials.push(Trial::test(format!("{machine}::{CLOSING}"), move || {
        bench.closing()
    }));
    trials
}

/// The part of a filter that the image can apply. A filter may begin with the machine's name, or within it; one that
/// fits the machine's name as a whole selects all tests. `None`: let the image run everything.
fn kernel_filter(filter: &str, machine: &str) -> Option<String> {
    if machine.contains(filter) || CLOSING.contains(filter) {
        return None;
    }
    let inner = match filter.split_once("::") {
        Some((head, rest)) if machine.ends_with(head) => rest,
        _ => filter,
    };
    (!inner.is_empty() && !CLOSING.contains(inner)).then(|| inner.to_owned())
}

fn machines() -> anyhow::Result<Vec<Box<dyn Machine + Send + Sync>>> {
    let all = TestMachine::ALL.map(TestMachine::machine);
    let Ok(wanted) = std::env::var(MACHINES_VAR) else {
        return Ok(all
            .into_iter()
            .filter(|machine| machine.needs().iter().all(|need| need.is_present()))
            .collect());
    };
    let wanted: Vec<&str> = wanted.split(',').collect();
    for name in &wanted {
        anyhow::ensure!(
            all.iter().any(|machine| machine.name() == *name),
            "{MACHINES_VAR}: no machine {name:?}"
        );
    }
    Ok(all
        .into_iter()
        .filter(|machine| wanted.contains(&machine.name().as_str()))
        .collect())
}
