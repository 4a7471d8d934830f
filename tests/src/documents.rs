//! Small documents whose fate is known, put together as text, so that every byte of them is deliberate.

use crate::{Cloud, Stretch};
use anyhow::Result;
use fixtures::Fixture;
use jiff::{SignedDuration, Timestamp};

pub use fixtures::Disposition;

#[derive(Clone, Debug)]
pub struct Message {
    pub index: String,
    pub id: String,
    pub at: Timestamp,
    pub source: Vec<u8>,
    pub disposition: Disposition,
    pub reason: Option<&'static str>,
    pub no_alerts: bool,
    /// In the order in which the archive must keep them: by instant, index and id.
    pub history: Vec<Fixture>,
    pub audit: Vec<Fixture>,
}

pub fn instant(text: &str) -> Timestamp {
    identity::instant::parse(text).expect("an instant of the tests")
}

pub fn iso(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

const CLOSED: &str = r#"[{"alert_id":"a1","status":"closed","severity":"low","category":"test","opened_at":"2020-01-01T00:00:00Z","closed_at":"2020-01-02T00:00:00Z"}]"#;

impl Message {
    /// A closed message without history and audit.
    pub fn closed(stretch: &Stretch, name: &str, at: &str) -> Self {
        Message::with_alerts(stretch, name, at, CLOSED, Disposition::Closed)
    }

    pub fn open(stretch: &Stretch, name: &str, at: &str) -> Self {
        Message::with_alerts(
            stretch,
            name,
            at,
            r#"[{"alert_id":"a1","status":"closed"},{"alert_id":"a2","status":"Open "}]"#,
            Disposition::Open,
        )
    }

    pub fn with_alerts(stretch: &Stretch, name: &str, at: &str, alerts: &str, disposition: Disposition) -> Self {
        let (id, at) = (format!("{}-{name}", stretch.prefix), instant(at));
        let source = format!(r#"{{"message_id":"{id}","timestamp":"{}","text":"{name}","alerts":{alerts}}}"#, iso(at))
            .into_bytes();
        Message {
            index: "messages-a".into(),
            id,
            at,
            source,
            disposition,
            reason: None,
            no_alerts: false,
            history: Vec::new(),
            audit: Vec::new(),
        }
    }

    /// The same document in another index.
    pub fn in_index(mut self, index: &str) -> Self {
        self.index = index.to_owned();
        self
    }

    /// Another version of the same message.
    pub fn changed(&self, text: &str) -> Self {
        let source = String::from_utf8_lossy(&self.source).replacen(
            r#"{"message_id""#,
            &format!(r#"{{"version":"{text}","message_id""#),
            1,
        );
        Message { source: source.into_bytes(), ..self.clone() }
    }

    /// The same message with all its alerts closed.
    pub fn now_closed(&self) -> Self {
        let source = String::from_utf8_lossy(&self.source).replace("Open ", "closed");
        Message { source: source.into_bytes(), disposition: Disposition::Closed, ..self.clone() }
    }

    /// The same message with its first alert reopened.
    pub fn reopened(&self) -> Self {
        let source =
            String::from_utf8_lossy(&self.source).replacen(r#""status":"closed""#, r#""status":"reopened""#, 1);
        Message { source: source.into_bytes(), disposition: Disposition::Open, ..self.clone() }
    }

    /// What the id is called in every stretch.
    pub fn name(&self) -> &str {
        self.id.split_once('-').map_or(self.id.as_str(), |(_, name)| name)
    }

    pub fn date(&self) -> String {
        self.at.strftime("%Y-%m-%d").to_string()
    }

    pub fn document(&self) -> Fixture {
        Fixture { index: self.index.clone(), id: self.id.clone(), source: self.source.clone() }
    }

    /// Gives it history and audit: out of order in the source, two of them at one instant.
    fn with_trail(mut self, history: usize, audit: usize) -> Self {
        let trail = |index: &str, letter: char, count: usize| -> Vec<Fixture> {
            let mut documents: Vec<(SignedDuration, Fixture)> = (0..count)
                .map(|n| {
                    let after = SignedDuration::from_secs([5, 3, 3, 9, 1, 7][n % 6]);
                    let id = format!("{}-{letter}{n}", self.id);
                    let source = format!(
                        r#"{{"message_id":"{}", "timestamp":"{}","actor":"ä","details":{{"n":{n}.0,"big":9007199254740993}}}}"#,
                        self.id,
                        iso(self.at + after)
                    );
                    (after, Fixture { index: index.to_owned(), id, source: source.into_bytes() })
                })
                .collect();
            documents.sort_by(|a, b| (a.0, &a.1.index, &a.1.id).cmp(&(b.0, &b.1.index, &b.1.id)));
            documents.into_iter().map(|(_, document)| document).collect()
        };
        (self.history, self.audit) = (trail("history-a", 'h', history), trail("audit-a", 'a', audit));
        self
    }
}

/// `count` messages of every kind over three days of February and one of May, in three indices: two windows.
pub fn mixture(stretch: &Stretch, count: usize) -> Vec<Message> {
    (0..count).map(|n| one_of_a_mixture(stretch, n, count)).collect()
}

pub fn one_of_a_mixture(stretch: &Stretch, n: usize, count: usize) -> Message {
    let day = if n * 5 < count * 4 { format!("02-0{}", 1 + n % 3) } else { "05-10".to_owned() };
    let at = format!("{}-{day}T{:02}:{:02}:00.{:03}Z", stretch.year, n % 24, n % 60, n % 1000);
    let name = format!("m{n:03}");
    let with = |alerts: &str, disposition| Message::with_alerts(stretch, &name, &at, alerts, disposition);
    let spelled = |message: Message, more: &str| {
        let source =
            String::from_utf8_lossy(&message.source).replacen(r#","text":"#, &format!(r#",{more},"text":"#), 1);
        Message { source: source.into_bytes(), ..message }
    };
    let message = match n % 12 {
        2 => Message::open(stretch, &name, &at),
        5 => Message {
            reason: Some("unrecognised_status"),
            ..with(r#"[{"status":"closed"},{"status":"resolved"}]"#, Disposition::Quarantined)
        },
        7 => Message { no_alerts: true, ..with("[]", Disposition::Closed) },
        // What a careless reader would change: big integers, floats, escapes, order and spacing of keys.
        8 => spelled(with(CLOSED, Disposition::Closed), r#""zz" : 123456789012345678901234567890, "aa":1.0,"e":1E2"#),
        9 => spelled(
            with(CLOSED, Disposition::Closed),
            r#""esc":"\u00e9\/\ud83d\ude00 \ud800","nul":"\u0000","raw":"é😀""#,
        ),
        10 => spelled(with(CLOSED, Disposition::Closed), "\"lines\":\n[1,\n 2]"),
        _ => with(CLOSED, Disposition::Closed),
    };
    message.in_index(["messages-a", "messages-b", "messages-c"][n % 3]).with_trail(n % 5, n % 3)
}

impl Cloud {
    /// Puts messages with all that belongs to them into the source.
    pub async fn load(&self, messages: &[Message]) -> Result<()> {
        let documents: Vec<Fixture> = messages
            .iter()
            .flat_map(|message| [vec![message.document()], message.history.clone(), message.audit.clone()].concat())
            .collect();
        self.source.write(documents.into_iter(), |_| {}).await?;
        self.source.refresh(&["messages", "history", "audit"]).await
    }
    /// Takes a message out of the source; what belongs to it stays.
    pub async fn delete(&self, message: &Message) -> Result<()> {
        let url = format!("{}/{}/_doc/{}?refresh=true", self.opensearch_url, message.index, message.id);
        let (status, body) = self.http.send(hyper::Method::DELETE, &url, "").await?;
        anyhow::ensure!(status == 200, "{status}: {}", String::from_utf8_lossy(&body));
        Ok(())
    }
}
