//! Transcripts of `guest-tests`: what each program or case has printed, and how it ended.

/// What one program or case has said.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Section {
    /// The program or case.
    pub name: String,
    /// Its lines.
    pub rows: Vec<String>,
    /// How it ended; none when the transcript breaks off before that.
    pub end: Option<String>,
}

/// Parts a transcript into sections: `=== NAME`, rows, `=== NAME: END`. What stands outside of them is nobody's.
pub fn parse(text: &str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for line in text.lines() {
        let open = sections.last_mut().filter(|section| section.end.is_none());
        match (line.strip_prefix("=== "), open) {
            (Some(head), Some(section)) => match head.strip_prefix(&*section.name) {
                Some(rest) if rest.starts_with(": ") => section.end = Some(rest[2..].to_owned()),
                _ => section.rows.push(line.to_owned()),
            },
            (Some(head), None) => sections.push(Section {
                name: head.to_owned(),
                ..Section::default()
            }),
            (None, Some(section)) => section.rows.push(line.to_owned()),
            (None, None) => {}
        }
    }
    sections
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_have_their_rows_and_their_end() {
        let sections = parse("noise\n=== a\none\n=== b\ntwo\n=== a: exit 0\nnoise\n=== b\n=== b: signal 9\n");
        assert_eq!(sections.len(), 2);
        assert_eq!(sections[0].rows, ["one", "=== b", "two"]);
        assert_eq!(sections[0].end.as_deref(), Some("exit 0"));
        assert_eq!(sections[1].end.as_deref(), Some("signal 9"));
    }

    #[test]
    fn a_transcript_that_breaks_off_has_no_end() {
        let sections = parse("=== 12\nrow\n");
        assert_eq!((sections[0].rows.len(), &sections[0].end), (1, &None));
    }
}
