//! Ends: outcomes, results, hooks.

use alloc::string::ToString;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use crate::task::spawn::spawn_returning;
use crate::task::{self, NAME_LEN, Outcome, State, Task, spawn};

#[test]
fn join_tells_how_the_task_ended() {
    let fine = spawn("fine", None, || ()).unwrap();
    let failed = spawn("failed", None, || Err::<(), _>("no luck")).unwrap();
    assert_eq!(fine.join(), Outcome::Done);
    assert_eq!(failed.join(), Outcome::Failed("no luck".to_string()));
    assert_eq!(
        failed.join(),
        Outcome::Failed("no luck".to_string()),
        "a second time as well"
    );
    assert_eq!(failed.state(), State::Ended);
}

#[test]
fn join_hands_over_the_result() {
    assert_eq!(spawn_returning("sum", None, || 1 + 2).unwrap().join(), Ok(3));
}

#[test]
fn a_task_that_exits_has_an_outcome_and_no_result() {
    let task = spawn_returning("quitter", None, || -> u32 { task::exit(Err::<(), _>("enough")) }).unwrap();
    assert_eq!(task.join(), Err(Outcome::Failed("enough".to_string())));
}

#[test]
fn a_panic_is_the_failure_of_its_task_only() {
    let task = spawn("doomed", None, || -> () { panic!("told {} so", "you") }).unwrap();
    assert_eq!(task.join(), Outcome::Failed("told you so".to_string()));
}

#[test]
#[should_panic(expected = "waits for its own end")]
fn a_task_cannot_join_itself() {
    task::current().join();
}

#[test]
fn hooks_run_once_on_the_task_that_ends() {
    let runs = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&runs);
    let task = spawn("hooked", None, move || {
        let me = task::current().id();
        task::current().on_end(move |task, outcome| {
            assert_eq!(*outcome, Outcome::Done);
            assert_eq!((task.id(), task::current().id()), (me, me));
            counter.fetch_add(1, SeqCst);
            // A hook may add another, and may wait.
            task.on_end(move |_, _| {
                task::sleep(core::time::Duration::from_millis(1));
                counter.fetch_add(1, SeqCst);
            });
        });
    })
    .unwrap();
    assert_eq!(task.join(), Outcome::Done);
    assert_eq!(runs.load(SeqCst), 2);
}

#[test]
fn a_hook_for_a_task_that_has_ended_runs_at_once() {
    let task = spawn("gone", None, || ()).unwrap();
    task.join();
    let mut seen = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&seen);
    task.on_end(move |_, outcome| {
        assert_eq!(*outcome, Outcome::Done);
        counter.fetch_add(1, SeqCst);
    });
    assert_eq!(Arc::get_mut(&mut seen).map(|n| *n.get_mut()), Some(1));
}

#[test]
fn names_are_cut_between_characters() {
    let long = "ä".repeat(NAME_LEN);
    let task = Task::detached(&long);
    assert_eq!(task.name(), "ä".repeat(NAME_LEN / 2));
}

#[test]
fn ended_tasks_leave_the_table() {
    let id = {
        let task = Task::detached("short-lived");
        task.id()
    };
    task::for_each(|task| assert_ne!(task.id(), id));
}
