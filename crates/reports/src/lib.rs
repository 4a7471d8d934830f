//! What people read: mails and the page. Content only; nothing in here sends, stores or reads a clock.
//!
//! A pipeline says what it has to say once, as [`section::Section`]s; mail and page show the same of them:
//!
//! ```
//! use reports::letter::{Letter, Link};
//! use reports::section::{Account, Bar, Colour, Figure, Problem, Section, State, Table};
//!
//! let files = Section::new("Partner feeds", "the last 7 days")
//!     .headline(State::Attention, "2 files wait in the dead-letter queue.")
//!     .figures(vec![Figure::count("Files", 1_204).note("12 more than last week"), Figure::new("Size", reports::bytes(12_340_000))])
//!     .account(Account::new("Lines read", 5_000, &[("Consolidated", 4_990, Colour::Done), ("Quarantined", 10, Colour::SetAside)]))
//!     .bars("Records by partner", vec![Bar::count("acme", 4_000, Colour::Done), Bar::count("zeta", 990, Colour::Done)])
//!     .table(Table::new("Oldest waiting", &["File", "#Minutes"]).rows([["alerts/acme/a.gz".into(), "12".into()]], None))
//!     .problems("What failed", vec![Problem { name: "UnknownContentType".into(), affected: "2 files".into(), ..Problem::default() }])
//!     .command("Deliver them again:", vec!["alert-archive feeds replay-dlq".into()]);
//! let letter = Letter { subject: "Partner feeds: 2 files wait".into(), headline: files.headline.clone(),
//!     state: files.state, links: vec![Link { label: "Page".into(), url: "https://example.com/".into() }],
//!     sections: vec![files.clone()], ..Letter::default() };
//! let mail = letter.render().unwrap(); // subject, text, html
//! let published = files.published(jiff::Timestamp::UNIX_EPOCH); // JSON
//! # assert!(mail.text.contains("5,000  Lines read") && published["section"]["title"] == "Partner feeds");
//! ```
//!
//! A pipeline writes what [`Section::published`](section::Section::published) gives to `dashboard/data/<pipeline>.json`
//! ([`dashboard::PIPELINES`] names them). The page shows it as a section of its own, and the weekly mail repeats it. A
//! pipeline that has written nothing is not mentioned. What has nothing to say (an empty table, no problems) is not
//! shown, long lists are cut and counted, and foreign text stays on its line: none of it has to be asked for. Numbers
//! and sizes are put into words by [`count`], [`grouped`] and [`bytes`], so that they read alike everywhere.

pub mod archive;
mod chart;
pub mod cost;
pub mod dashboard;
pub mod feeds;
pub mod letter;
pub mod log_errors;
pub mod mail;
pub mod section;
mod state;
pub mod table_file;
pub mod warehouse;
mod words;

pub use words::{
    SetAside, all_well, bytes, console_of, count, days, duration, extent, failures, grouped, log_of, minute,
    outcome_label, quoted, range, rerun_command, sentence, set_aside, state,
};
