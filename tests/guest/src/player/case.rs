//! One case: posts its steps one after the other, and writes down what each brings about.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use super::control::{ACTORS, Control, THREADS};
use super::pen::{Pen, Runs};
use super::script::{Case, Step};
use super::settle::{Look, Looks, Watch};
use super::steps::{channel, process};
use super::{actor, arena, touch};

/// Plays the case to its end.
pub fn play(case: &'static Case<'static>, control: &'static Control) {
    touch::install();
    arena::anchor();
    if let Err(error) = actor::start(case, control) {
        return control
            .transcript()
            .line(format_args!("cannot start the actors: {error}"));
    }
    let mut play = Play {
        case,
        control,
        watch: Watch::new(control),
        waiting: [None; ACTORS.len()],
        counts: [None; channel::CHANNELS],
    };
    for number in 0..case.steps.len() {
        if play.step(number).is_err() {
            return;
        }
    }
    if play.release().is_ok() {
        play.contents();
    }
}

/// The case does not become quiet: nothing more can be said about it.
struct Restless;

struct Play {
    case: &'static Case<'static>,
    control: &'static Control,
    watch: Watch,
    /// Who waited, and how it looked, after the last step.
    waiting: Looks,
    /// Unread and unresolved faults of each channel, after the last step.
    counts: [Option<(u64, u64)>; channel::CHANNELS],
}

impl Play {
    fn step(&mut self, number: usize) -> Result<(), Restless> {
        let step = &self.case.steps[number];
        let transcript = self.control.transcript();
        if let Some(reason) = self.not_now(step) {
            transcript.line(format_args!("{number} {} -> {reason}", step.line));
            return Ok(());
        }
        self.control.slot(step.actor).post(number);
        let before = self.waiting;
        let looks = self.settle()?;
        let mut line = Pen::<9000>::new();
        let _ = match looks[step.actor] {
            None => write!(
                line,
                "{number} {} -> {}",
                step.line,
                self.control.slot(step.actor).answer()
            ),
            Some(look) => write!(line, "{number} {} -> waits {}", step.line, char::from(look.state)),
        };
        self.write_counts(&mut line);
        transcript.line(line.text());
        self.write_released(number, &before, &looks);
        self.note_disorder(&before, &looks);
        if let Some(child) = process::killed(step.what) {
            self.watch.forget(child);
        }
        Ok(())
    }

    /// Why the step is not carried out, if it is not.
    fn not_now(&self, step: &Step<'_>) -> Option<&'static str> {
        let slot = self.control.slot(step.actor);
        if slot.tid.load(Ordering::Relaxed) == 0 {
            return Some("no such child");
        }
        if slot.busy() {
            return Some("still waits");
        }
        let verb = step.what.split(' ').next().unwrap_or_default();
        let steps_waiting = || {
            let waiting = (0..ACTORS.len()).filter(|actor| self.waiting[*actor].is_some());
            waiting.map(|actor| &self.case.steps[self.control.slot(actor).step()])
        };
        let in_verb = |verbs: &[&str]| {
            steps_waiting()
                .filter(|step| verbs.contains(&step.what.split(' ').next().unwrap_or_default()))
                .count()
        };
        match verb {
            // Whoever drops contents, and whoever puts some there, would go on at the same moment.
            "close" if in_verb(&["advise"]) > 0 && steps_waiting().count() > 1 => Some("not tried: a race"),
            "r" | "w" | "sysread" | "syswrite" if step.actor < THREADS && self.is_being_dropped(step) => {
                Some("not tried: perhaps a stale translation")
            }
            // A task whose system call copies to or from the page that it waits for would turn in circles.
            "signal" if in_verb(&["r", "w"]) < self.interruptible() => Some("not tried: a busy loop"),
            _ => None,
        }
    }

    /// How many wait so that a signal would wake them.
    fn interruptible(&self) -> usize {
        let looks = self.waiting.iter().flatten();
        looks.filter(|look| look.state != b'D').count()
    }

    /// Whether a thread touches what another one is dropping, while that one waits until an event is read. Since madvise(2)
    /// flushes once for all the areas of a range, Linux 6.18 does so after the wait: what lies in front of the area that it
    /// waits for is gone from the page tables, and until a processor forgets its translation, loads find the old page there,
    /// and stores go to it and are lost.
    fn is_being_dropped(&self, touch: &Step<'_>) -> bool {
        let Some(touched) = touch.what.split(' ').nth(1).and_then(arena::address) else {
            return false;
        };
        let page = touched & !(arena::PAGE - 1);
        (0..THREADS)
            .filter(|actor| self.waiting[*actor].is_some())
            .filter_map(|actor| {
                let mut words = self.case.steps[self.control.slot(actor).step()].what.split(' ');
                let advised = words.next() == Some("advise");
                let start = words.next().and_then(arena::address)?;
                let length = words.next().and_then(arena::length)?;
                let drops = matches!(words.next(), Some("dontneed" | "dontneed_locked" | "free"));
                (advised && drops).then(|| start..start.saturating_add(length))
            })
            .any(|dropped| dropped.start < page + arena::PAGE && page < dropped.end)
    }

    fn settle(&mut self) -> Result<Looks, Restless> {
        let (looks, quiet) = self.watch.settle(&self.waiting);
        if quiet {
            self.waiting = looks;
            return Ok(looks);
        }
        for (name, look) in ACTORS.iter().zip(looks.iter()) {
            if let Some(look) = look {
                let state = char::from(look.state);
                self.control
                    .transcript()
                    .line(format_args!("!! not quiet: {name} {state}"));
            }
        }
        Err(Restless)
    }

    /// The channels' counters, where they differ from what they were.
    fn write_counts<const N: usize>(&mut self, line: &mut Pen<N>) {
        for (index, last) in self.counts.iter_mut().enumerate() {
            let now = channel::counts(index);
            if now != *last
                && let Some((pending, total)) = now
            {
                let _ = write!(line, " | u{index} {pending}/{total}");
            }
            *last = now;
        }
    }

    /// Those who waited before, and do not any more.
    fn write_released(&self, number: usize, before: &Looks, now: &Looks) {
        for actor in 0..ACTORS.len() {
            let slot = self.control.slot(actor);
            let gone = actor >= THREADS && slot.pid.load(Ordering::Relaxed) == 0;
            if before[actor].is_some() && now[actor].is_none() && !gone {
                self.control.transcript().line(format_args!(
                    "{number}   {} goes on with step {} -> {}",
                    ACTORS[actor],
                    slot.step(),
                    slot.answer()
                ));
            }
        }
    }

    /// Two that have run and wait again have queued up in an order that nobody decides. Not those who wait until an event is
    /// read: they keep their place, whether or not the kernel lets them look in between.
    fn note_disorder(&self, before: &Looks, now: &Looks) {
        let tells = |actor: usize, look: &Look| {
            let step = self.case.steps.get(self.control.slot(actor).step());
            look.state == b'D' && !step.is_some_and(|step| process::looks_pages_up(step.what))
        };
        let queued_anew = now
            .iter()
            .zip(before)
            .enumerate()
            .filter(|(actor, (now, before))| {
                now.as_ref().is_some_and(|look| !tells(*actor, look)) && now != before
            })
            .count();
        if queued_anew > 1 {
            self.control.set_disorder(true);
        } else if self.control.disorder() && self.counts.iter().flatten().all(|(pending, _)| *pending == 0) {
            self.control.set_disorder(false);
        }
    }

    /// Ends whatever is still going on.
    fn release(&mut self) -> Result<(), Restless> {
        let number = self.case.steps.len();
        let mut before = self.waiting;
        // Whoever waits within a call on a channel keeps that channel open: there is no way to end all in a certain order.
        let in_call = |actor: usize| {
            let step = self.case.steps.get(self.control.slot(actor).step());
            before[actor].is_some() && step.is_some_and(|step| channel::is_ioctl(step.what))
        };
        if (0..ACTORS.len()).any(in_call) {
            self.control
                .transcript()
                .line("in the end: somebody waits within a call on a channel");
            return Err(Restless);
        }
        let settle = |play: &mut Self, before: &mut Looks| {
            let now = play.settle()?;
            play.write_released(number, before, &now);
            *before = now;
            Ok(())
        };
        for actor in 0..THREADS {
            let verb = self
                .case
                .steps
                .get(self.control.slot(actor).step())
                .map(|step| step.what);
            if before[actor].is_some() && verb.is_some_and(|verb| verb.starts_with("read")) {
                process::interrupt(self.control, actor);
                settle(self, &mut before)?;
            }
        }
        for index in 0..channel::CHANNELS {
            while channel::drop_one_message(index) {
                settle(self, &mut before)?;
            }
        }
        for index in 0..channel::CHANNELS {
            // Page by page: of two that go on at once, one may copy a page of a file before or after the other one stores to it.
            if before.iter().flatten().count() > 1 {
                for (page, len) in arena::pages() {
                    if channel::unregister(index, page, len) {
                        settle(self, &mut before)?;
                    }
                }
            }
            if channel::close(index) {
                settle(self, &mut before)?;
            }
        }
        for actor in THREADS..ACTORS.len() {
            // Its end may close the last descriptor of a channel that another one waits at.
            process::kill(self.control, actor);
            self.watch.forget(actor);
            settle(self, &mut before)?;
        }
        for (actor, look) in before.iter().enumerate() {
            if let Some(look) = look {
                self.control.transcript().line(format_args!(
                    "{} has not come back from step {}: {}",
                    ACTORS[actor],
                    self.control.slot(actor).step(),
                    char::from(look.state)
                ));
            }
        }
        Ok(())
    }

    /// What the arena holds in the end: a digest per page, `-` where nothing is mapped, `!` where it raises SIGBUS.
    fn contents(&self) {
        let mut line = Pen::<4096>::new();
        let _ = write!(line, "in the end: ");
        let mut runs = Runs::new(&mut line);
        for (page, _) in arena::pages() {
            let _ = runs.push(Digest::of(page));
        }
        let _ = runs.end();
        self.control.transcript().line(line.text());
    }
}

/// What a page holds, as far as actors and patterns put something there.
#[derive(PartialEq)]
enum Digest {
    Holds(u16),
    Nothing,
    Raises,
}

impl Digest {
    fn of(page: usize) -> Self {
        let mut digest = 0_u16;
        for byte in (0..ACTORS.len())
            .map(|actor| actor * 64)
            .chain([1024, arena::PAGE - 1])
        {
            match touch::load(page + byte) {
                Ok(value) => digest = digest.rotate_left(5) ^ u16::from(value),
                Err(raised) if raised.is_bus_error() => return Self::Raises,
                Err(_) => return Self::Nothing,
            }
        }
        Self::Holds(digest)
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Holds(digest) => write!(f, "{digest:x}"),
            Self::Nothing => f.write_str("-"),
            Self::Raises => f.write_str("!"),
        }
    }
}
