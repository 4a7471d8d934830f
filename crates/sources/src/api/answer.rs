//! Reads what the API answered. Whatever is no page gets a name, and is never taken for an empty page.

use super::ApiError;
use bytes::Bytes;
use reqwest::{
    Response, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_TYPE, DATE, HeaderMap, RETRY_AFTER},
};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::time::{Duration, SystemTime};

/// A page as it came: the elements of its list, each from its first byte to its last.
#[derive(Debug)]
pub(crate) struct Page {
    pub messages: Vec<Bytes>,
    pub total: u64,
    pub total_pages: u64,
    /// Of the whole answer.
    pub bytes: u64,
}

#[derive(Deserialize)]
struct RawPage<'a> {
    #[serde(borrow)]
    messages: Vec<&'a RawValue>,
    total: u64,
    total_pages: u64,
}

/// The error that a status stands for; none for 200. 401 is the caller's to judge, who knows how old the token is.
pub(crate) fn refusal(status: StatusCode, headers: &HeaderMap, now: SystemTime, span: &str) -> Option<ApiError> {
    let number = status.as_u16();
    match number {
        200 => None,
        201..300 => Some(ApiError::Unreadable { reason: format!("status {number}") }),
        300..400 => Some(ApiError::Redirected { status: number }),
        429 | 500.. => Some(ApiError::Unavailable { status: number, retry_after: retry_after(headers, now) }),
        _ => Some(ApiError::Rejected { status: number, span: span.to_owned() }),
    }
}

/// How long to wait: seconds, or the time until an HTTP date, by the server's clock or by ours, whichever is longer.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        // Rounded up, and never too large to be a number: a server that says so wants to be left alone.
        return text.parse::<f64>().ok().map(|seconds| Duration::from_secs(seconds.ceil() as u64));
    }
    let until = httpdate::parse_http_date(text).ok()?;
    let servers = headers.get(DATE).and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
    [Some(now), servers]
        .into_iter()
        .flatten()
        .filter_map(|now| until.duration_since(now).ok())
        .max()
        .or(Some(Duration::ZERO))
}

/// The body, no more than `limit` bytes of it at once in memory.
pub(crate) async fn body(answer: &mut Response, limit: u64) -> Result<Bytes, ApiError> {
    if answer.content_length().is_some_and(|length| length > limit) {
        return Err(ApiError::TooLarge { limit });
    }
    let mut body = Vec::with_capacity(answer.content_length().unwrap_or(0) as usize);
    // A body that ends before its length, or in the middle of a chunk, is an error here.
    let cut = |error: reqwest::Error| {
        if error.is_timeout() {
            return ApiError::Unreachable { source: error.without_url() };
        }
        ApiError::Unreadable { reason: "the connection ended in the middle of it".into() }
    };
    while let Some(piece) = answer.chunk().await.map_err(cut)? {
        if body.len() as u64 + piece.len() as u64 > limit {
            return Err(ApiError::TooLarge { limit });
        }
        body.extend_from_slice(&piece);
    }
    Ok(body.into())
}

/// A page must be JSON by its headers, where they say anything at all.
pub(crate) fn check_headers(headers: &HeaderMap) -> Result<(), ApiError> {
    let unreadable = |reason: String| Err(ApiError::Unreadable { reason });
    let text =
        |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).trim().to_ascii_lowercase());
    if let Some(encoding) = text(CONTENT_ENCODING).filter(|encoding| !encoding.is_empty() && encoding != "identity") {
        return unreadable(format!("it is encoded as {}, which was not asked for", shown(&encoding)));
    }
    let Some(content_type) = text(CONTENT_TYPE) else { return Ok(()) };
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    if kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json")) {
        return Ok(());
    }
    unreadable(format!("its Content-Type is {}", shown(kind)))
}

/// What a stranger wrote, fit for a log.
fn shown(text: &str) -> String {
    let text: String = text.chars().filter(|letter| letter.is_ascii_graphic()).take(60).collect();
    if text.is_empty() { "empty".into() } else { format!("`{text}`") }
}

pub(crate) fn parse(body: &Bytes) -> Result<Page, ApiError> {
    let unreadable = |reason: &str| ApiError::Unreadable { reason: reason.to_owned() };
    let text = std::str::from_utf8(body).map_err(|_| unreadable("it is not UTF-8"))?;
    match text.trim_start().bytes().next() {
        None => return Err(unreadable("it is empty")),
        Some(b'{') => {}
        Some(b'<') => return Err(unreadable("it looks like HTML")),
        Some(_) => return Err(unreadable("it is not a JSON object")),
    }
    // The parser's own message says where and what kind, and quotes nothing of the body but a field's name of ours.
    let page: RawPage = serde_json::from_str(text).map_err(|error| {
        let what = match error.classify() {
            serde_json::error::Category::Eof => "it is cut",
            serde_json::error::Category::Data => "it has no list of messages or no totals",
            _ => "it is not valid JSON",
        };
        unreadable(&format!("{what} (line {}, column {})", error.line(), error.column()))
    })?;
    let messages = page.messages.into_iter().map(|message| body.slice_ref(message.get().as_bytes())).collect();
    Ok(Page { messages, total: page.total, total_pages: page.total_pages, bytes: body.len() as u64 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use errors::{Name, Named};
    use reqwest::header::HeaderValue;

    fn read(body: &str) -> Result<Page, ApiError> {
        parse(&Bytes::copy_from_slice(body.as_bytes()))
    }

    #[test]
    fn a_message_is_what_stands_between_its_braces() {
        let messages = "{ \"b\" : 1.0,\n\"a\":9007199254740993, \"c\":\"\\ud800\" }";
        let body = format!(
            "\n{{\"total\": 2 ,\"x\":[{{\"messages\":3}}], \"messages\" : [ {messages}\t,\n{{}} ],\"total_pages\":1}}\n "
        );
        let page = read(&body).expect("a page");
        assert_eq!((page.messages[0].as_ref(), page.messages[1].as_ref()), (messages.as_bytes(), b"{}".as_slice()));
        assert_eq!((page.total, page.total_pages, page.bytes), (2, 1, body.len() as u64));
    }

    #[test]
    fn what_is_no_page_is_unreadable_and_never_empty() {
        for body in [
            "",
            "  ",
            "null",
            "[]",
            "[[],0,0]",
            "{}",
            "<html></html>",
            "{\"messages\":[],\"total\":0",
            "{\"messages\":[],\"total\":0}",
            "{\"messages\":[],\"total_pages\":0}",
            "{\"messages\":null,\"total\":0,\"total_pages\":0}",
            "{\"messages\":{},\"total\":0,\"total_pages\":0}",
            "{\"messages\":[],\"total\":-1,\"total_pages\":0}",
            "{\"messages\":[],\"total\":\"0\",\"total_pages\":0}",
            "{\"messages\":[],\"messages\":[],\"total\":0,\"total_pages\":0}",
            "{\"messages\":[],\"total\":0,\"total_pages\":0} x",
            "{\"error\":\"login\"}",
            "\u{feff}{\"messages\":[],\"total\":0,\"total_pages\":0}",
        ] {
            let error = read(body).expect_err(body);
            assert_eq!(error.name(), Name::SourceUnreadable, "{body}: {error}");
        }
        assert!(parse(&Bytes::from_static(b"{\"messages\":[\"\xff\"],\"total\":1,\"total_pages\":1}")).is_err());
    }

    #[test]
    fn only_json_is_read() {
        let with = |name: &'static str, value: &str| {
            HeaderMap::from_iter([(name.parse().expect("name"), HeaderValue::from_str(value).expect("value"))])
        };
        for fine in ["application/json", "Application/JSON; charset=utf-8", "application/problem+json"] {
            assert!(check_headers(&with("content-type", fine)).is_ok(), "{fine}");
        }
        for wrong in ["text/html", "text/plain", "application/jsonp", "", "application/octet-stream"] {
            assert!(check_headers(&with("content-type", wrong)).is_err(), "{wrong}");
        }
        assert!(check_headers(&HeaderMap::new()).is_ok());
        assert!(check_headers(&with("content-encoding", "gzip")).is_err());
    }

    #[test]
    fn each_status_has_its_name() {
        for (status, name) in [
            (204, Name::SourceUnreadable),
            (301, Name::SourceRejected),
            (302, Name::SourceRejected),
            (400, Name::SourceRejected),
            (403, Name::SourceRejected),
            (404, Name::SourceRejected),
            (429, Name::SourceUnavailable),
            (500, Name::SourceUnavailable),
            (503, Name::SourceUnavailable),
            (599, Name::SourceUnavailable),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            let error = refusal(status, &HeaderMap::new(), SystemTime::UNIX_EPOCH, "x").expect("no page");
            assert_eq!(error.name(), name, "{status}");
        }
        assert!(refusal(StatusCode::OK, &HeaderMap::new(), SystemTime::UNIX_EPOCH, "x").is_none());
    }

    #[test]
    fn retry_after_is_read_in_both_forms_and_by_both_clocks() {
        let now = httpdate::parse_http_date("Mon, 16 Nov 2026 06:00:00 GMT").expect("a date");
        let wait = |pairs: &[(&str, &str)]| {
            let pairs = pairs
                .iter()
                .map(|(name, value)| (name.parse().expect("name"), HeaderValue::from_str(value).expect("value")));
            retry_after(&HeaderMap::from_iter(pairs), now)
        };
        for (text, seconds) in [("7", 7), ("0", 0), ("1.2", 2), ("99999999999999999999", u64::MAX)] {
            assert_eq!(wait(&[("retry-after", text)]), Some(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!((wait(&[("retry-after", "")]), wait(&[("retry-after", "1.2.3")])), (None, None));
        assert_eq!(wait(&[("retry-after", "Mon, 16 Nov 2026 06:00:05 GMT")]), Some(Duration::from_secs(5)));
        let skewed = [("retry-after", "Mon, 16 Nov 2026 05:50:09 GMT"), ("date", "Mon, 16 Nov 2026 05:50:00 GMT")];
        assert_eq!(wait(&skewed), Some(Duration::from_secs(9)));
        assert_eq!(wait(&[("retry-after", "Mon, 16 Nov 2026 05:00:00 GMT")]), Some(Duration::ZERO));
        assert_eq!((wait(&[]), wait(&[("retry-after", "soon")]), wait(&[("retry-after", "-1")])), (None, None, None));
    }
}
