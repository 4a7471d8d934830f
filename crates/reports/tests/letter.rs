//! Mails put together from sections.

use reports::letter::{Letter, Link, Rendered};
use reports::section::{Account, Bar, Colour, Figure, Problem, Section, State, Table};

fn section() -> Section {
    let parts =
        [("Archived", 941, Colour::Done), ("Still open", 117, Colour::Waiting), ("Failed", 433, Colour::Failed)];
    let problem = Problem {
        name: "CountMismatch".into(),
        affected: "1 window, 433 messages".into(),
        places: vec!["2024-07-03".into()],
        message: "1,203 counted, 1,201 read".into(),
        advice: "Run what failed again.".into(),
        link: Some("https://console.example.com/logs".into()),
    };
    Section::new("This run", "weekly-39")
        .headline(State::Bad, "1 of 3 windows failed.")
        .text("Some words.")
        .notes(vec!["51 messages had no alerts.".into()])
        .figures(vec![Figure::count("Backlog", 12_640).note("14 more"), Figure::new("Size", "12.3 MB")])
        .account(Account::new("Planned", 1500, &parts))
        .table(Table::new("Oldest open", &["Message", "#Days"]).rows([["MSG-1".into(), "273".into()]], Some(7)))
        .bars("By reason", vec![Bar::count("unknown status", 31, Colour::SetAside)])
        .problems("What failed", vec![problem])
        .command("Run them again:", vec!["alert-archive rerun weekly-39".into()])
        .lines("Stack", vec!["at a".into(), "at b".into()])
}

fn letter() -> Letter {
    let link = |label: &str, url: &str| Link { label: label.into(), url: url.into() };
    Letter {
        subject: "Alert archive: 1 of 3 windows failed".into(),
        about: "weekly-39".into(),
        state: State::Bad,
        headline: "Do something.".into(),
        sections: vec![section()],
        links: vec![link("Page", "https://example.com/?a=1&b=2"), link("Trap", "javascript:alert(1)")],
        footer: "Run weekly-39".into(),
        ..Letter::default()
    }
}

fn rendered(letter: &Letter) -> Rendered {
    letter.render().expect("a mail")
}

/// What a reader of the HTML sees.
fn shown(html: &str) -> String {
    let body = html.split_once("<body").expect("a body").1;
    let texts = body.split('<').skip(1).filter_map(|piece| piece.split_once('>')).map(|(_, text)| text);
    let text = texts.collect::<Vec<_>>().join(" ").replace("&#9632;", "").replace("&#x27;", "'").replace("&#x2f;", "/");
    text.replace("&nbsp;", " ").replace("&middot;", "").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_date_in_a_table_stays_on_one_line_and_a_name_does_not_have_to() {
    let rows = [["MSG-20240102-0000001-4fe29a".into(), "2024-01-02".into(), "2024-01-02 till now".into()]];
    let table = Table::new("Oldest open", &["Message", "Message of", "Seen"]).rows(rows, None);
    let section = Section::new("The archive now", "all runs").table(table);
    let html = rendered(&Letter { sections: vec![section], ..letter() }).html;
    assert!(html.contains("white-space:nowrap;\">2024-01-02</td>"), "{html}");
    assert!(!html.contains("nowrap;\">MSG-") && !html.contains("nowrap;\">2024-01-02 till"), "{html}");
}

#[test]
fn text_and_html_say_the_same() {
    let mail = rendered(&letter());
    let words = |text: &str| {
        let mut words: Vec<String> = text
            .to_lowercase()
            .split(|c: char| !(c.is_alphanumeric() || ",.".contains(c)))
            .map(|word| word.trim_matches([',', '.']).to_owned())
            .filter(|word| !word.is_empty())
            .collect();
        words.sort();
        words.dedup();
        words
    };
    let text =
        words(&mail.text.replace("https://example.com/?a=1&b=2", "").replace("https://console.example.com/logs", ""));
    assert_eq!(text, words(&shown(&mail.html)), "{}\n{}", mail.text, shown(&mail.html));
    assert!(mail.text.starts_with("Do something.\n"), "{}", mail.text);
    for said in ["and 6 more", "9  NOT ACCOUNTED FOR", "12,640  Backlog (14 more)", "  MSG-1     273", "  at a\n  at b"]
    {
        assert!(mail.text.contains(said), "{said}: {}", mail.text);
    }
}

#[test]
fn hostile_text_changes_neither_lines_nor_markup() {
    let bad = "x\r\nBcc: a@example.com\r\n<script>alert(1)</script>\"'&\u{202e}{{ 7*7 }}";
    let problem = Problem {
        name: bad.into(),
        affected: bad.into(),
        places: vec![bad.into()],
        message: bad.into(),
        advice: bad.into(),
        link: Some(format!("https://example.com/\"><script>{bad}")),
    };
    let section = Section::new(bad, bad)
        .headline(State::Bad, bad)
        .text(bad)
        .notes(vec![bad.into()])
        .figures(vec![Figure::new(bad, bad).note(bad)])
        .account(Account::new(bad, 1, &[(bad, 1, Colour::Other)]))
        .table(Table::new(bad, &[bad]).rows([[bad.into()]], None))
        .bars(bad, vec![Bar::count(bad, 1, Colour::Done)])
        .problems(bad, vec![problem])
        .command(bad, vec![bad.into()])
        .lines(bad, vec![bad.into()]);
    let link = Link { label: bad.into(), url: "javascript:alert(1)".into() };
    let (sections, links) = (vec![section], vec![link]);
    let letter = Letter {
        subject: bad.into(),
        about: bad.into(),
        headline: bad.into(),
        footer: bad.into(),
        sections,
        links,
        ..letter()
    };
    let mail = rendered(&letter);
    assert!(!mail.subject.contains(['\r', '\n']));
    for part in [&mail.text, &mail.html] {
        assert!(!part.lines().any(|line| line.trim().starts_with("Bcc")), "{part}");
        assert!(!part.contains('\u{202e}') && part.contains("{{ 7*7 }}") && !part.contains("javascript:"), "{part}");
    }
    assert!(!mail.html.contains("<script") && mail.html.contains("&lt;script&gt;"), "{}", mail.html);
}

#[test]
fn a_mail_loads_nothing_and_is_dark_where_its_reader_is() {
    let mail = rendered(&letter());
    for forbidden in ["src=", "url(", "@import", "<link", "<script"] {
        assert!(!mail.html.contains(forbidden), "{forbidden}");
    }
    assert!(mail.html.contains("prefers-color-scheme: dark"));
    assert!(!mail.html.contains("javascript:") && mail.html.contains("a=1&amp;b=2"), "{}", mail.html);
}

#[test]
fn a_duplicate_says_so_everywhere() {
    let mail = rendered(&Letter { duplicate: true, ..letter() });
    assert!(mail.subject.starts_with("[duplicate] Alert archive"));
    assert!(mail.text.starts_with("DUPLICATE:") && mail.html.contains("<strong>Duplicate:</strong>"));
    assert!(!rendered(&letter()).html.contains("uplicate"));
}
