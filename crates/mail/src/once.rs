use crate::{Content, MailError, Mailer, message};
use async_trait::async_trait;
use errors::{Named, describe};
use jiff::{SignedDuration, Timestamp};
use ledger::{Once, Sending};

/// No lease: a second sender is started only when the first one ended or was taken for dead, and a mail that says that
/// it may be the second is better than one that waits until the workflow no longer tries.
const LEASE: SignedDuration = SignedDuration::ZERO;

/// Where it is noted which recipients have a mail.
#[async_trait]
pub trait Outbox: Send + Sync {
    type Error: Named + From<MailError>;

    /// Lets `decide` change the note of one recipient, on condition that it has not changed in between: otherwise
    /// `decide` is called again. `None` takes the note away.
    async fn change(
        &self,
        recipient: &str,
        decide: &mut (dyn FnMut(Option<Once>) -> Option<Once> + Send),
    ) -> Result<(), Self::Error>;
}

/// What became of a mail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    /// Recipients to whom it went out now.
    pub sent: Vec<String>,
    /// Recipients who had it before.
    pub already: Vec<String>,
    /// Recipients who cannot get it, and why.
    pub rejected: Vec<(String, String)>,
}

/// Sends a mail to each recipient who has not got it yet. A claim is noted before each sending: where an earlier one
/// was never marked as sent, its sender died, and this mail may be the second (`content(true)`).
///
/// A recipient whom SES refuses costs the others no mail; when SES refuses all of them, that is the error. An error
/// that passes ends the sending; called again it goes on with the recipients that are left.
pub async fn send_once<O: Outbox>(
    outbox: &O,
    mailer: &dyn Mailer,
    (from, to): (&str, &[String]),
    now: Timestamp,
    content: impl Fn(bool) -> Result<Content, O::Error>,
) -> Result<Delivery, O::Error> {
    let first = message(&content(false)?, from, to, now)?;
    let mut outcome = Delivery::default();
    let mut last_rejection = None;
    for (recipient, error) in first.rejected {
        outcome.rejected.push((recipient, error.to_string()));
    }
    for recipient in &first.recipients {
        let mut sending = Sending::Done;
        let mut claim = |once: Option<Once>| {
            sending = Once::claim(once.as_ref(), now, LEASE);
            match sending {
                Sending::Now { once, .. } => Some(once),
                Sending::Done | Sending::Busy { .. } => once,
            }
        };
        outbox.change(recipient, &mut claim).await?;
        let Sending::Now { once, again } = sending else {
            outcome.already.push(recipient.clone());
            continue;
        };
        let bytes = if again { message(&content(true)?, from, to, now)?.bytes } else { first.bytes.clone() };
        match mailer.send(from, recipient, &bytes).await {
            Ok(()) => {
                mark(outbox, recipient, once, |once, attempt| Ok(Some(once.sent(attempt, now)?))).await?;
                outcome.sent.push(recipient.clone());
            }
            Err(error) if error.is_about_one_recipient() => {
                mark(outbox, recipient, once, |once, attempt| once.refused(attempt, now)).await?;
                tracing::error!(error = error.name().as_str(), what = describe(&error), "a recipient gets no mail");
                outcome.rejected.push((recipient.clone(), error.to_string()));
                last_rejection = Some(error);
            }
            // Whether it went out is not known: the claim stays, and the next sending says so.
            Err(error) => return Err(error.into()),
        }
    }
    match last_rejection {
        Some(error) if outcome.sent.is_empty() && outcome.already.is_empty() => Err(error.into()),
        _ => Ok(outcome),
    }
}

/// Changes the claim that this sender wrote. Where another has taken over meanwhile, its note stands.
async fn mark<O: Outbox>(
    outbox: &O,
    recipient: &str,
    claim: Once,
    change: impl Fn(Once, u64) -> Result<Option<Once>, ledger::Superseded> + Send + Sync,
) -> Result<(), O::Error> {
    let mut mark = |once: Option<Once>| {
        let standing = once?;
        change(standing, claim.attempt()).unwrap_or(Some(standing))
    };
    outbox.change(recipient, &mut mark).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemoryMailer, Sent};
    use errors::Name;
    use network::{Calm, OneFault, Strike};
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Notes(Mutex<BTreeMap<String, Once>>);

    #[async_trait]
    impl Outbox for Notes {
        type Error = MailError;

        async fn change(
            &self,
            recipient: &str,
            decide: &mut (dyn FnMut(Option<Once>) -> Option<Once> + Send),
        ) -> Result<(), MailError> {
            let mut notes = self.0.lock().expect("a lock");
            match decide(notes.get(recipient).copied()) {
                Some(once) => notes.insert(recipient.to_owned(), once),
                None => notes.remove(recipient),
            };
            Ok(())
        }
    }

    fn content(duplicate: bool) -> Result<Content, MailError> {
        let subject = if duplicate { "[duplicate] Report" } else { "Report" };
        let (text, html) = ("text".into(), "html".into());
        Ok(Content { id: "r1.1".into(), subject: subject.into(), text, html, ..Content::default() })
    }

    async fn send(notes: &Notes, mailer: &MemoryMailer, to: &[&str]) -> Result<Delivery, MailError> {
        let to: Vec<String> = to.iter().map(|&address| address.to_owned()).collect();
        send_once(notes, mailer, ("archive@example.com", &to), Timestamp::UNIX_EPOCH, content).await
    }

    fn shown(sent: &[Sent]) -> Vec<(&str, String)> {
        sent.iter().map(|sent| (sent.to.as_str(), sent.header("Subject").expect("a subject"))).collect()
    }

    const TWO: [&str; 2] = ["a@example.com", "b@example.com"];

    #[tokio::test]
    async fn each_recipient_gets_a_mail_once() {
        let (notes, mailer) = (Notes::default(), MemoryMailer::new(Calm::shared()));
        assert_eq!(send(&notes, &mailer, &TWO).await.expect("sent").sent, TWO);
        assert_eq!(send(&notes, &mailer, &TWO).await.expect("nothing to do").already, TWO);
        assert_eq!(mailer.sent().len(), 2);
        assert_eq!(send(&notes, &mailer, &["c@example.com", TWO[0]]).await.expect("sent").sent, ["c@example.com"]);
    }

    #[tokio::test]
    async fn a_refused_recipient_loses_nobody_else_s_mail_and_can_get_it_later() {
        let (notes, mailer) = (Notes::default(), MemoryMailer::new(Calm::shared()));
        let refusing = mailer.clone().refusing(TWO[0]);
        let outcome = send(&notes, &refusing, &[TWO[0], TWO[1], "no address"]).await.expect("one got it");
        assert_eq!((outcome.sent.as_slice(), outcome.rejected.len()), (&[TWO[1].to_owned()][..], 2));
        let none = send(&Notes::default(), &mailer.clone().refusing(TWO[0]), &TWO[..1]).await;
        assert_eq!(none.expect_err("nobody got it").name(), Name::MailRejected);
        send(&notes, &mailer, &TWO).await.expect("sent");
        // Nothing went out the first time, so that it is no duplicate.
        assert_eq!(shown(&mailer.sent()), [(TWO[1], "Report".into()), (TWO[0], "Report".into())]);
    }

    #[tokio::test]
    async fn a_mail_that_may_have_gone_out_is_sent_again_and_says_so() {
        for (strike, expected) in [
            (Strike::Answer, vec!["Report", "[duplicate] Report", "Report"]),
            (Strike::Request, vec!["[duplicate] Report", "Report"]),
        ] {
            let (notes, mailer) = (Notes::default(), MemoryMailer::new(Calm::shared()));
            let broken = mailer.through(OneFault::at(0, strike));
            assert_eq!(send(&notes, &broken, &TWO).await.expect_err("broken").name(), Name::MailUnavailable);
            send(&notes, &mailer, &TWO).await.expect("sent");
            let subjects: Vec<String> = shown(&mailer.sent()).into_iter().map(|(_, subject)| subject).collect();
            assert_eq!(subjects, expected);
        }
    }
}
