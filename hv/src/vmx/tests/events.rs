use crate::state::{Injection, SystemState};
use crate::vendor::Injected;
use crate::vmx::events::{Event, Events};

const TIMER: Injection = Injection::Interrupt(0x40);
const PAGE_FAULT: Injection = Injection::Exception {
    vector: 14,
    code: Some(2),
};

#[test]
fn an_interrupt_goes_in_once_with_the_next_entry() {
    let mut events = Events::default();
    assert_eq!(events.inject(TIMER, true), Injected::Queued);
    assert_eq!(events.at_entry(true), (Some(Event::interrupt(0x40)), false));
    events.delivered();
    assert_eq!(events.at_entry(true), (None, false));
}

#[test]
fn an_interrupt_that_comes_too_early_is_not_kept_but_announced() {
    let mut events = Events::default();
    assert_eq!(events.inject(TIMER, false), Injected::NotNow);
    assert_eq!(events.at_entry(false), (None, true));
    events.delivered();
    assert!(events.opened());
    assert_eq!(events.at_entry(true), (None, false), "told once");
    assert_eq!(events.inject(TIMER, true), Injected::Queued);
}

#[test]
fn only_one_event_waits_at_a_time() {
    let mut events = Events::default();
    assert_eq!(events.inject(TIMER, true), Injected::Queued);
    assert_eq!(events.inject(Injection::Interrupt(0x41), true), Injected::NotNow);
    assert_eq!(events.at_entry(true), (Some(Event::interrupt(0x40)), true));
}

#[test]
fn what_was_cut_short_goes_in_again() {
    let mut events = Events::default();
    let page_fault = Event::exception(14, Some(2));
    assert_eq!(events.inject(PAGE_FAULT, false), Injected::Queued);
    assert_eq!(events.at_entry(false), (Some(page_fault), false));
    events.delivered();
    events.deliver_again(page_fault);
    assert_eq!(events.inject(TIMER, true), Injected::NotNow);
    assert_eq!(events.at_entry(true), (Some(page_fault), true));
}

#[test]
fn an_exception_goes_before_an_interrupt_which_is_not_lost() {
    let mut events = Events::default();
    assert_eq!(events.inject(TIMER, true), Injected::Queued);
    assert_eq!(events.inject(PAGE_FAULT, true), Injected::Queued);
    assert_eq!(
        events.at_entry(true),
        (Some(Event::exception(14, Some(2))), true),
        "the interrupt wants the window"
    );
    events.delivered();
    assert!(!events.opened(), "nobody else waits for it");
    assert_eq!(events.inject(Injection::Interrupt(0x41), true), Injected::NotNow);
    assert_eq!(events.at_entry(false), (None, true), "the guest is not ready");
    assert_eq!(events.at_entry(true), (Some(Event::interrupt(0x40)), true));
    events.delivered();
    assert!(events.opened(), "the second one's turn");
}

#[test]
fn an_exception_replaces_an_exception() {
    let mut events = Events::default();
    assert_eq!(events.inject(PAGE_FAULT, true), Injected::Queued);
    let protection = Injection::Exception {
        vector: 13,
        code: Some(0),
    };
    assert_eq!(events.inject(protection, true), Injected::Queued);
    assert_eq!(
        events.at_entry(true),
        (Some(Event::exception(13, Some(0))), false)
    );
    events.delivered();
    assert_eq!(events.at_entry(true), (None, false));
}

#[test]
fn what_the_cpu_describes_is_delivered_as_it_was() {
    let never = || -> u32 { panic!("not asked for") };
    assert_eq!(Event::described(0x0000_0b0e, never, never), None, "not valid");
    let interrupt = Event::described(0x8000_0040, never, never);
    assert_eq!(interrupt, Some(Event::interrupt(0x40)));
    // Bit 12 is undefined.
    let page_fault = Event::described(0x8000_1b0e, || 6, never).expect("valid");
    assert_eq!(page_fault, Event::exception(14, Some(6)));
    let software = Event::described(0x8000_0480, never, || 2).expect("valid");
    assert_eq!((software.info, software.code, software.len), (0x8000_0480, 0, 2));
    let breakpoint = Event::described(0x8000_0603, never, || 1).expect("valid");
    assert_eq!((breakpoint.info, breakpoint.len), (0x8000_0603, 1));
}

#[test]
fn what_waits_survives_a_state() {
    let software = Event::described(0x8000_0450, || 0, || 2).expect("it is valid");
    let mut events = Events::default();
    for cut_short in [software, Event::interrupt(0x50)] {
        events.delivered();
        events.deliver_again(cut_short);
        let mut state = SystemState::default();
        events.save(&mut state);
        assert_eq!(Events::load(&state), events);
    }
    events.put_first(Event::exception(14, Some(0x1234_5678)));
    let mut state = SystemState::default();
    events.save(&mut state);
    assert_eq!(
        (state.event, state.displaced),
        (0x1234_5678_8000_0b0e, 0x8000_0050)
    );
    assert_eq!(Events::load(&state), events);
}

#[test]
fn a_state_that_says_nothing_leaves_nothing_waiting() {
    let mut events = Events::default();
    assert_eq!(events.inject(TIMER, false), Injected::NotNow);
    let mut state = SystemState::default();
    events.save(&mut state);
    assert_eq!(Events::load(&state), Events::default());
}
