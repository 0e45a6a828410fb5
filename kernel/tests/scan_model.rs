//! Scans against a page-by-page model: random stores, loads, protections and scans with random masks over areas whose
//! stores are noted, are messages, or are nobody's, across the border of two tables.

mod common;

use common::{RW, World};
use kernel::mm::addr::{PAGE_SIZE, VirtAddr};
use kernel::mm::range::VirtRange;
use kernel::mm::space::{Category, PageRun, ScanError, ScanRequest, Scanned};
use kernel::mm::uaccess;
use kernel::uffd::{Features, FillMode, Modes, Uffd};
use proptest::prelude::*;

const PAGES: usize = 40;
/// The first page behind the border of two tables.
const BORDER: usize = 20;
const START: VirtAddr = VirtAddr::new(0x4020_0000 - BORDER as u64 * PAGE_SIZE);

/// Who is told about stores to a page.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Area {
    Noted,
    Nobody,
    Message,
}

fn area(page: usize) -> Area {
    match page {
        0..16 => Area::Noted,
        16..28 => Area::Nobody,
        _ => Area::Message,
    }
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Content {
    Nothing,
    Zeros,
    Own,
}

#[derive(Clone, Copy, Debug)]
struct Page {
    content: Content,
    /// As a page or, with no content, as a marker.
    protected: bool,
}

#[derive(Clone, Copy, Debug)]
struct Span(usize, usize);

impl Span {
    fn range(self) -> VirtRange {
        let at = |page: usize| START + page as u64 * PAGE_SIZE;
        VirtRange::new(at(self.0), at(self.1))
    }
}

#[derive(Clone, Debug)]
enum Op {
    Store(usize),
    Load(usize),
    Discard(Span),
    Protect(Span),
    Unprotect(Span),
    Scan(Span, [Category; 4], Option<u64>, usize, bool, bool),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let span = || (0..PAGES, 1..=PAGES).prop_map(|(start, len)| Span(start, (start + len).min(PAGES)));
    let category = || {
        let some = [
            Category::empty(),
            Category::WPALLOWED,
            Category::WRITTEN,
            Category::PRESENT,
            Category::SWAPPED,
            Category::PFNZERO,
            Category::WRITTEN | Category::PRESENT,
            Category::all(),
        ];
        proptest::sample::select(some.to_vec())
    };
    let masks = (category(), category(), category(), category());
    let scan = (
        span(),
        masks,
        proptest::option::of(0..30u64),
        0..6usize,
        any::<bool>(),
        proptest::bool::weighted(0.2),
    );
    let op = prop_oneof![
        4 => (0..PAGES).prop_map(Op::Store),
        2 => (0..PAGES).prop_map(Op::Load),
        1 => span().prop_map(Op::Discard),
        2 => span().prop_map(Op::Protect),
        1 => span().prop_map(Op::Unprotect),
        5 => scan.prop_map(|(span, (a, b, c, d), max, room, protect, require)| {
            Op::Scan(span, [a, b, c, d], max, room, protect, require)
        }),
    ];
    proptest::collection::vec(op, 1..60)
}

/// What a scan should come to: runs as page numbers, and the page where it ends.
type Found = Result<(Vec<(usize, usize, Category)>, usize), ScanError>;

struct Model {
    pages: [Page; PAGES],
    /// Whether there is a table on either side of the border.
    tables: [bool; 2],
}

impl Model {
    fn note_table(&mut self, page: usize) {
        self.tables[usize::from(page >= BORDER)] = true;
    }

    fn protect(&mut self, page: usize) {
        // Where stores are messages, this context does not cover what is not there.
        if area(page) == Area::Noted || self.pages[page].content != Content::Nothing {
            self.pages[page].protected = true;
            self.note_table(page);
        }
    }

    fn categories(&self, number: usize) -> Category {
        let Page { content, protected } = self.pages[number];
        let mut found = Category::empty();
        found.set(Category::WPALLOWED, area(number) == Area::Noted);
        found.set(Category::PRESENT, content != Content::Nothing);
        found.set(Category::PFNZERO, content == Content::Zeros);
        found.set(Category::SWAPPED, content == Content::Nothing && protected);
        let known = area(number) != Area::Nobody || self.tables[usize::from(number >= BORDER)];
        found.set(
            Category::WRITTEN,
            !protected && (content != Content::Nothing || known),
        );
        found
    }

    fn scan(&mut self, span: Span, request: &ScanRequest, room: usize) -> Found {
        let mut runs: Vec<(usize, usize, Category)> = Vec::new();
        let mut count = 0;
        for page in span.0..span.1 {
            let noted = area(page) == Area::Noted;
            if !noted && request.require_tracking {
                return Err(ScanError::NotTracked);
            }
            if !noted && request.protect {
                continue;
            }
            let found = self.categories(page);
            let seen = found ^ request.inverted;
            let matches = seen.contains(request.all_of)
                && (request.any_of.is_empty() || seen.intersects(request.any_of));
            if room > 0 && matches {
                let report = found & request.report;
                let extends = matches!(runs.last(), Some((_, end, same)) if *end == page && *same == report);
                if request.max_pages == Some(count) || !extends && runs.len() == room {
                    return Ok((runs, page));
                }
                count += 1;
                match runs.last_mut() {
                    Some(last) if extends => last.1 = page + 1,
                    _ => runs.push((page, page + 1, report)),
                }
            }
            let taken = if room == 0 {
                // Only the areas are looked at.
                let required = request.all_of & Category::WPALLOWED;
                (Category::WPALLOWED ^ request.inverted).contains(required)
            } else {
                matches
            };
            if request.protect && taken && found.contains(Category::WRITTEN) {
                self.protect(page);
            }
        }
        Ok((runs, span.1))
    }
}

fn real_scan(world: &World, request: &ScanRequest, room: usize) -> Found {
    let mut out = vec![PageRun::EMPTY; room];
    let Scanned { runs, end } = world.space.scan(request, &mut out)?;
    let number = |addr: VirtAddr| ((addr - START) / PAGE_SIZE) as usize;
    let runs = out[..runs]
        .iter()
        .map(|run| (number(run.range.start), number(run.range.end), run.categories));
    Ok((runs.collect(), number(end)))
}

fn play(ops: Vec<Op>) {
    let world = World::new();
    let all = Span(0, PAGES).range();
    assert_eq!(world.map_at(Some(START), PAGES as u64, RW), all);
    let noting = Uffd::new(&world.space, Features::WP_ASYNC);
    let telling = Uffd::new(&world.space, Features::empty());
    noting
        .register(Span(0, 16).range(), Modes::WP)
        .expect("anonymous memory can");
    telling
        .register(Span(28, PAGES).range(), Modes::WP)
        .expect("anonymous memory can");
    let empty = Page {
        content: Content::Nothing,
        protected: false,
    };
    let mut model = Model {
        pages: [empty; PAGES],
        tables: [false; 2],
    };
    for op in ops {
        match op {
            Op::Store(page) | Op::Load(page) => {
                let store = matches!(op, Op::Store(_));
                let Page { content, protected } = model.pages[page];
                if store && protected && area(page) == Area::Message {
                    // It would wait.
                    continue;
                }
                let at = Span(page, page + 1).range().start;
                let done = world.run(|| {
                    if store {
                        uaccess::store(at, 1)
                    } else {
                        uaccess::load(at).map(drop)
                    }
                });
                assert_eq!(done, Ok(()));
                model.note_table(page);
                model.pages[page] = match (store, content) {
                    (true, _) => Page {
                        content: Content::Own,
                        protected: false,
                    },
                    (false, Content::Nothing) => Page {
                        content: Content::Zeros,
                        protected,
                    },
                    (false, _) => model.pages[page],
                };
            }
            Op::Discard(span) => {
                world.space.discard(span.range()).expect("mapped");
                model.pages[span.0..span.1].fill(empty);
            }
            Op::Protect(span) | Op::Unprotect(span) => {
                // Within one registered area.
                let part = match area(span.0) {
                    Area::Noted => Span(span.0, span.1.min(16)),
                    Area::Nobody => continue,
                    Area::Message => span,
                };
                if matches!(op, Op::Protect(_)) {
                    assert_eq!(noting.write_protect(part.range()), Ok(()));
                    (part.0..part.1).for_each(|page| model.protect(page));
                } else {
                    let done = noting.remove_write_protection(part.range(), FillMode::empty());
                    assert_eq!(done, Ok(()));
                    (part.0..part.1).for_each(|page| model.pages[page].protected = false);
                }
            }
            Op::Scan(
                span,
                [inverted, all_of, any_of, report],
                max_pages,
                room,
                protect,
                require_tracking,
            ) => {
                let request = ScanRequest {
                    range: span.range(),
                    inverted,
                    all_of,
                    any_of,
                    report,
                    max_pages,
                    protect,
                    require_tracking,
                };
                let expected = model.scan(span, &request, room);
                assert_eq!(real_scan(&world, &request, room), expected, "{request:?}");
            }
        }
        let words: Vec<bool> = (0..PAGES)
            .map(|page| world.space.pagemap(Span(page, page + 1).range().start, false) >> 57 & 1 != 0)
            .collect();
        let protected: Vec<bool> = model.pages.iter().map(|page| page.protected).collect();
        assert_eq!(words, protected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn scans_report_and_protect_what_the_model_does(ops in ops()) {
        play(ops);
    }
}
