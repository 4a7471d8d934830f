//! Stack traces of Java, Python, Node, Go, Rust, .NET, Ruby, PHP and Elixir: which line belongs to one, and what a whole one says.

/// The languages whose traces differ in how they go on and end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Language {
    /// Frames that begin with `at`: Java, Node, .NET; and those of PHP, Elixir and browsers, which go on and end alike.
    At,
    Python,
    Go,
    Rust,
    Ruby,
}

/// `Type: text`, the line that names what was raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head<'a> {
    pub kind: &'a str,
    pub text: &'a str,
}

const TRACEBACK: &str = "Traceback (most recent call last):";

/// Reads `java.lang.IllegalStateException: text`, `ValueError: text`, `TypeError [CODE]: text`: a name that ends as
/// names of exceptions do.
pub fn head(line: &str) -> Option<Head<'_>> {
    const ENDS: [&str; 10] = [
        "Exception",
        "Error",
        "Throwable",
        "Interrupt",
        "Failure",
        "Fault",
        "Exit",
        "Timeout",
        "Iteration",
        "Rejection",
    ];
    let head = any_head(line)?;
    let name = head.kind.rsplit(['.', '$', ':']).next().unwrap_or(head.kind);
    let is_known = ENDS.iter().any(|end| name.ends_with(end)) && name.starts_with(|c: char| c.is_ascii_uppercase());
    is_known.then_some(head)
}

/// The same for any name: only what follows tells whether it was one.
fn any_head(line: &str) -> Option<Head<'_>> {
    let line = without_announcement(line.trim_start());
    // Elixir: `** (RuntimeError) text`.
    if let Some((kind, text)) = line.strip_prefix("** (").and_then(|rest| rest.split_once(") ")) {
        return (!kind.contains(' ')).then(|| Head { kind, text: text.trim() });
    }
    if !line.starts_with(|c: char| c.is_alphabetic() || c == '_') {
        return None;
    }
    let end = line.find(|c: char| !(c.is_alphanumeric() || "_.$`/<>".contains(c))).unwrap_or(line.len());
    let (kind, mut rest) = line.split_at(end);
    if kind.ends_with(['.', '/']) {
        return None;
    }
    // Node writes a code in brackets, .NET a number in parentheses.
    for (open, close) in [(" [", ']'), (" (0x", ')'), (" (", ')')] {
        if rest.starts_with(open)
            && let Some(at) = rest.find(close)
            && (rest[at + 1..].is_empty() || rest[at + 1..].starts_with(": "))
        {
            rest = &rest[at + 1..];
            break;
        }
    }
    // Java's modules and class loaders: `java.base/java.lang.Error`.
    let kind = kind.rsplit('/').next().unwrap_or(kind);
    match rest.strip_prefix(':') {
        Some(text) if text.is_empty() || text.starts_with([' ', '\t']) => Some(Head { kind, text: text.trim() }),
        None if rest.trim().is_empty() => Some(Head { kind, text: "" }),
        _ => None,
    }
}

/// What runtimes print in front of an exception that nothing caught.
fn without_announcement(line: &str) -> &str {
    let line = line.trim_end();
    if let Some(rest) = line.strip_prefix("Exception in thread ") {
        // A thread's name is in quotes in Java, and may hold anything; in Python it is not.
        let behind = rest.strip_prefix('"').and_then(|rest| rest.find("\" ").map(|at| &rest[at + 2..]));
        return behind.unwrap_or("");
    }
    const WORDS: [&str; 8] = [
        "Unhandled exception. ",
        "Unhandled Exception: ",
        "Uncaught exception: ",
        "Uncaught Exception: ",
        "Unhandled rejection ",
        "Uncaught (in promise) ",
        "Uncaught ",
        "UnhandledPromiseRejectionWarning: ",
    ];
    let line = line.strip_prefix("(node:").and_then(|rest| rest.split_once(") ")).map_or(line, |(_, rest)| rest);
    WORDS.iter().find_map(|word| line.strip_prefix(word)).unwrap_or(line)
}

/// A line that only a dying program writes: no logger puts it behind an entry of its own.
pub fn is_crash(line: &str) -> bool {
    let starts = [
        "Exception in thread ",
        "Unhandled exception. ",
        "Unhandled Exception: ",
        "panic: ",
        "fatal error: ",
        "runtime: goroutine stack exceeds",
        "Uncaught ",
        "Unhandled rejection ",
        "SIGQUIT: ",
        "Exception ignored in: ",
    ];
    starts.iter().any(|start| line.starts_with(start))
        || is_rust_panic(line)
        || ruby_head(line).is_some()
        || (line.starts_with("(node:") && line.contains("UnhandledPromiseRejection"))
}

fn is_rust_panic(line: &str) -> bool {
    line.starts_with("thread '") && line.contains(" panicked at ")
}

/// Where it was raised, and what: `app.rb:12:in 'foo': text (RuntimeError)`.
fn ruby_head(line: &str) -> Option<(&str, Head<'_>)> {
    let end = place_in_ruby(line)?;
    let (function, rest) = line[end..].split_once("': ")?;
    let (text, kind) = rest.trim_end().strip_suffix(')')?.rsplit_once(" (")?;
    is_ruby_type(kind).then(|| (&line[..end + function.len()], Head { kind, text }))
}

/// Where the function's name begins behind `app.rb:12:in '`, or `` app.rb:12:in ` ``.
fn place_in_ruby(line: &str) -> Option<usize> {
    let at = line.find(":in ")?;
    let (path, number) = line[..at].rsplit_once(':')?;
    let is_place = !path.is_empty() && !path.contains(' ') && number.bytes().all(|byte| byte.is_ascii_digit());
    let end = at + ":in ".len();
    (is_place && !number.is_empty() && line[end..].starts_with(['\'', '`'])).then_some(end + 1)
}

/// `\tfrom app.rb:12:in 'foo'`, also without the word, and behind tags of Rails: `[id] app.rb:12:in 'foo'`.
fn ruby_frame(line: &str) -> Option<&str> {
    let text = line.trim_start();
    let text = text.strip_prefix('[').and_then(|rest| rest.split_once("] ")).map_or(text, |(_, text)| text);
    let text = text.strip_prefix("from ").unwrap_or(text).trim_end();
    let end = place_in_ruby(text)?;
    // The name ends with the line.
    text[end..].find('\'').is_some_and(|at| end + at + 1 == text.len()).then_some(text)
}

/// `#0 /app/a.php(7): foo()`, `#1 {main}`.
fn is_php_frame(text: &str) -> bool {
    let Some((number, frame)) = text.strip_prefix('#').and_then(|rest| rest.split_once(' ')) else { return false };
    number.bytes().all(|byte| byte.is_ascii_digit())
        && (frame.trim_end() == "{main}" || frame.starts_with("[internal function]") || frame.contains(".php("))
}

/// The place and the function of `(app 1.0.0) lib/a.ex:7: A.b/1`; the library's own have their application in front.
fn elixir_frame(text: &str) -> Option<&str> {
    let code = text.strip_prefix('(').and_then(|rest| rest.split_once(") ")).map_or(text, |(_, code)| code);
    let at = [".ex:", ".exs:", ".erl:"].iter().find_map(|end| code.find(end).map(|at| at + end.len()))?;
    let is_place = !code[..at].contains(' ') && code[at..].starts_with(|c: char| c.is_ascii_digit());
    is_place.then(|| code[at..].split_once(": ").map(|(_, function)| function))?
}

/// `f@https://a.example/b.js:1:2`, as Firefox and Safari write it.
fn browser_frame(text: &str) -> Option<(&str, &str)> {
    let (name, place) = text.trim_end().split_once('@')?;
    let is_known = ["https://", "http://", "webpack", "file://"].iter().any(|start| place.starts_with(start));
    let ends_with_numbers = place.rsplit(':').take(2).all(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
    (is_known && ends_with_numbers && !name.contains(' ')).then_some((name, place))
}

/// `<empty>` in front of the source line that Node prints above an uncaught error: `/app/server.js:10`.
pub fn is_node_place(line: &str) -> bool {
    let Some((path, number)) = line.rsplit_once(':') else { return false };
    let is_path = path.starts_with(['/'])
        || path.starts_with("file://")
        || path.starts_with("node:")
        || path.as_bytes().get(1..3) == Some(b":\\");
    is_path && !path.contains(' ') && !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// A frame, or a line that connects traces: what stands only within a trace.
pub fn is_inner(line: &str) -> bool {
    let text = line.trim_start_matches([' ', '\t', '|', '+']);
    let is_indented = text.len() < line.len();
    (is_indented
        && (is_at_frame(text) || text.starts_with("File \"") || is_count(text) || elixir_frame(text).is_some()))
        || is_link(text)
        || is_php_frame(text)
        || ruby_frame(line).is_some()
        || browser_frame(text).is_some()
}

/// `at a.b.C(D.java:1)`, `at f (/app/x.js:1:2)`, `at N.C.M() in x.cs:line 1`.
fn is_at_frame(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("at ") else { return false };
    // Node opens an error's own fields behind its last frame.
    let rest = rest.trim_end_matches('{').trim_end();
    rest.contains('(')
        || rest
            .rsplit(':')
            .next()
            .is_some_and(|end| !end.is_empty() && end.trim_end().bytes().all(|byte| byte.is_ascii_digit()))
        || rest == "<anonymous>"
}

/// `... 12 more`, `... 3 common frames omitted`.
fn is_count(text: &str) -> bool {
    text.strip_prefix("... ").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

fn is_link(text: &str) -> bool {
    // Rust's anyhow and eyre list causes below these, PHP its frames.
    if matches!(text, "Caused by:" | "Stack backtrace:" | "Location:" | "Stack trace:") {
        return true;
    }
    let starts =
        ["Caused by: ", "Suppressed: ", "Wrapped by: ", "--- End of ", "---> ", "[CIRCULAR REFERENCE", "[cause]: "];
    starts.iter().any(|start| text.starts_with(start))
}

fn is_python_link(line: &str) -> bool {
    let text = line.trim_start_matches([' ', '|']);
    text.starts_with("During handling of the above exception")
        || text.starts_with("The above exception was the direct cause")
}

pub fn is_traceback(line: &str) -> bool {
    line.trim_start_matches([' ', '|', '+']).ends_with(TRACEBACK)
        || line.trim_start_matches([' ', '|', '+']).starts_with("Exception Group Traceback")
}

/// Whether `line` begins a trace: surely, or only if a frame follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    Sure,
    /// Its looks are those of an exception's name; without frames it may be prose.
    Likely,
    No,
}

pub fn start(line: &str) -> Start {
    if is_crash(line)
        || (is_traceback(line) && !line.starts_with([' ', '\t']))
        || line.starts_with("  + Exception Group Traceback")
    {
        Start::Sure
    } else if head(line).is_some() || is_node_place(line) || is_goroutine(line) || rails_head(line).is_some() {
        Start::Likely
    } else {
        Start::No
    }
}

/// An error also if no frame follows.
pub fn is_sure(line: &str) -> bool {
    let is_type = |kind: &str| kind.ends_with("Exception") || kind.ends_with("Error");
    is_crash(line) || head(line).is_some_and(|head| is_type(head.kind))
}

fn is_goroutine(line: &str) -> bool {
    line.strip_prefix("goroutine ")
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()) && rest.ends_with("]:"))
}

/// Follows a trace that stands alone, line by line, to its end.
#[derive(Clone, Debug)]
pub struct Follow {
    language: Option<Language>,
    has_frames: bool,
    /// Python: what was raised is named, so that only a link can go on.
    is_named: bool,
    /// Lines since the one that named the exception, without a frame so far.
    since_head: usize,
    in_braces: bool,
    /// Node prints place, source and caret above the error.
    in_preamble: bool,
    /// Python's `Exception in thread` and `Exception ignored in`: the trace itself comes below.
    is_announced: bool,
    /// Python's `logging` shows below an error of its own where it was called.
    in_call_stack: bool,
    /// Ruby: where the first was raised. The same again is another error, any other a cause.
    raised_at: Option<String>,
}

/// Whether a line belongs to the trace before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Yes,
    /// Only if a later line surely does.
    Perhaps,
    No,
}

/// An exception's text may have this many lines before its first frame.
const LONGEST_TEXT: usize = 30;

impl Follow {
    /// `line` is the first of the trace.
    pub fn begin(line: &str) -> Self {
        let raised_at = ruby_head(line).map(|(place, _)| place.to_owned());
        let language = if is_rust_panic(line) {
            Some(Language::Rust)
        } else if raised_at.is_some() || rails_head(line).is_some() {
            Some(Language::Ruby)
        } else if is_traceback(line) {
            Some(Language::Python)
        } else if line.starts_with("panic: ")
            || line.starts_with("fatal error: ")
            || line.starts_with("SIGQUIT")
            || line.starts_with("runtime: ")
            || is_goroutine(line)
        {
            Some(Language::Go)
        } else {
            None
        };
        Follow {
            language,
            has_frames: is_goroutine(line),
            is_named: false,
            since_head: 0,
            in_braces: line.ends_with('{'),
            in_preamble: is_node_place(line),
            is_announced: line.starts_with("Exception in") || line.starts_with("Exception ignored in"),
            in_call_stack: false,
            raised_at,
        }
    }

    /// Frames were seen: it is a trace and no prose.
    pub fn has_frames(&self) -> bool {
        self.has_frames
    }

    pub fn next(&mut self, line: &str) -> Next {
        self.since_head += 1;
        match self.language {
            Some(Language::Python) => self.next_python(line),
            Some(Language::Go) => self.next_go(line),
            Some(Language::Rust) => self.next_rust(line),
            Some(Language::Ruby) => self.next_ruby(line),
            Some(Language::At) | None => self.next_at(line),
        }
    }

    fn next_at(&mut self, line: &str) -> Next {
        if self.in_preamble {
            // `    throw new Error("x")`, `    ^`, an empty line, and then the error itself.
            if head(line).is_some() || (any_head(line).is_some() && !line.starts_with(' ')) {
                self.in_preamble = false;
                self.since_head = 0;
                return Next::Yes;
            }
            // What was thrown is no error: a text, or an object of several lines.
            if line.starts_with("Node.js v") {
                self.has_frames = true;
                self.in_preamble = false;
                return Next::Yes;
            }
            return if self.since_head <= LONGEST_TEXT && !is_crash(line) { Next::Perhaps } else { Next::No };
        }
        if self.is_announced && is_traceback(line) && !self.has_frames {
            self.language = Some(Language::Python);
            return Next::Yes;
        }
        let text = line.trim_start();
        if is_inner(line) {
            self.has_frames = true;
            self.language = Some(Language::At);
            self.in_braces |= line.ends_with('{');
            return Next::Yes;
        }
        if text.is_empty() {
            return if self.in_braces { Next::Yes } else { Next::Perhaps };
        }
        if text.len() < line.len() {
            self.in_braces |= line.ends_with('{');
            return if self.has_frames || self.in_braces { Next::Yes } else { Next::Perhaps };
        }
        if self.in_braces {
            self.in_braces = !line.starts_with('}');
            return Next::Yes;
        }
        if line.starts_with("Node.js v") && self.has_frames {
            return Next::Yes;
        }
        if self.has_frames || self.since_head > LONGEST_TEXT || start(line) == Start::Sure || head(line).is_some() {
            Next::No
        } else {
            Next::Perhaps
        }
    }

    fn next_python(&mut self, line: &str) -> Next {
        if is_traceback(line) {
            // Without a link before it, it is another error.
            let goes_on = !self.is_named || line.starts_with([' ', '|']);
            self.is_named &= !goes_on;
            return if goes_on { Next::Yes } else { Next::No };
        }
        if is_python_link(line) {
            self.is_named = false;
            return Next::Yes;
        }
        if line.trim().is_empty() {
            return Next::Perhaps;
        }
        if line.starts_with([' ', '\t', '>']) {
            self.has_frames |= python_frame(line).is_some();
            let is_of_group = line.trim_start().starts_with(['|', '+']);
            let goes_on = !self.is_named || is_of_group || self.in_call_stack;
            return if goes_on { Next::Yes } else { Next::Perhaps };
        }
        if self.is_named && line == "Call stack:" {
            self.in_call_stack = true;
            return Next::Yes;
        }
        if self.in_call_stack && (line.starts_with("Message: ") || line.starts_with("Arguments: ")) {
            return Next::Yes;
        }
        if self.is_named {
            return Next::No;
        }
        // The first line that is not indented names what was raised.
        self.is_named = true;
        self.has_frames = true;
        Next::Yes
    }

    fn next_go(&mut self, line: &str) -> Next {
        let text = line.trim_end();
        if text.is_empty() {
            return Next::Perhaps;
        }
        if is_goroutine(line) {
            self.has_frames = true;
            return Next::Yes;
        }
        let is_register = || {
            let mut words = text.split_whitespace();
            matches!((words.next(), words.next(), words.next()), (Some(_), Some(value), None) if value.starts_with("0x"))
        };
        let is_known = line.starts_with('\t')
            || line.starts_with("created by ")
            || line.starts_with("[signal ")
            || line.starts_with("[recovered")
            || line.starts_with("exit status ")
            || (line.starts_with("...") && line.ends_with("frames elided..."))
            || line.starts_with("runtime stack:")
            || line.starts_with("runtime: ")
            || line.starts_with("fatal error: stack overflow") && !self.has_frames
            || line.starts_with("PC=")
            || line.starts_with("panic: ") && !self.has_frames
            || line.starts_with("goroutine running on other thread")
            || is_go_function(text)
            || is_register();
        if is_known {
            return Next::Yes;
        }
        if self.has_frames || self.since_head > LONGEST_TEXT || start(line) == Start::Sure {
            Next::No
        } else {
            Next::Perhaps
        }
    }

    fn next_ruby(&mut self, line: &str) -> Next {
        let text = line.trim_start();
        // ` ... 10908 levels...`
        if ruby_frame(line).is_some() || text.starts_with("from ") || (text.starts_with("... ") && self.has_frames) {
            self.has_frames = true;
            return Next::Yes;
        }
        if text.is_empty() {
            return Next::Perhaps;
        }
        match ruby_head(line) {
            Some((place, _)) if self.has_frames && self.raised_at.as_deref() != Some(place) => Next::Yes,
            Some(_) => Next::No,
            // The text may have several lines, and the source may be shown.
            None if self.has_frames || self.since_head > LONGEST_TEXT || start(line) == Start::Sure => Next::No,
            None => Next::Perhaps,
        }
    }

    fn next_rust(&mut self, line: &str) -> Next {
        let is_known = line.starts_with("stack backtrace:")
            || line.starts_with("note: ")
            || (line.starts_with(' ') && self.has_frames);
        if is_known {
            self.has_frames = true;
            return Next::Yes;
        }
        if line.trim().is_empty() {
            return Next::Perhaps;
        }
        // The text stands below the place since Rust 1.73, and may have several lines.
        if self.since_head == 1 && !is_crash(line) {
            return Next::Yes;
        }
        if self.has_frames || self.since_head > LONGEST_TEXT || start(line) == Start::Sure {
            Next::No
        } else {
            Next::Perhaps
        }
    }
}

/// What stands behind `File "` of a frame. Python's loguru marks one with `>`.
fn python_frame(line: &str) -> Option<&str> {
    line.trim_start_matches([' ', '|', '+', '>']).strip_prefix("File \"")
}

/// `main.(*Server).handle(0x1, ...)`, `net/http.serve()`.
fn is_go_function(text: &str) -> bool {
    let Some(open) = text.find('(') else { return false };
    let open = if text[open..].starts_with("(*") || text[..open].ends_with('.') {
        text[open + 1..].find('(').map_or(open, |at| open + 1 + at)
    } else {
        open
    };
    text.ends_with(')') && !text[..open].contains(' ') && text[..open].contains('.')
}

/// What a trace says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Analysis {
    /// The type raised last, which is the outermost.
    pub exception: Option<String>,
    /// Its text.
    pub text: Option<String>,
    /// Types of its causes, the root last.
    pub causes: Vec<String>,
    /// The root cause's text.
    pub root_text: Option<String>,
    /// The function that the root cause was raised in: the first of the program's own, without line and file.
    pub place: Option<String>,
}

/// Reads a trace: the lines behind a message, or those that stand alone.
pub fn analyse(message: &str, stack: &str) -> Analysis {
    let lines: Vec<&str> = stack.lines().collect();
    if lines.iter().any(|line| ruby_head(line).is_some()) {
        return ruby(&lines);
    }
    if lines.iter().any(|line| is_traceback(line)) {
        return python(&lines);
    }
    if lines.iter().any(|line| is_rust_panic(line)) {
        return rust(&lines);
    }
    let is_go = |line: &&str| {
        is_goroutine(line)
            || line.starts_with("panic: ")
            || line.starts_with("fatal error: ")
            || line.starts_with("SIGQUIT")
    };
    if lines.iter().any(is_go) {
        return go(&lines, message);
    }
    let has_at = lines.iter().any(|line| is_inner(line));
    if !has_at && lines.iter().zip(lines.iter().skip(1)).any(|(name, place)| is_go_place(name, place)) {
        return go(&lines, message);
    }
    at_frames(message, &lines)
}

fn at_frames(message: &str, lines: &[&str]) -> Analysis {
    let mut analysis = Analysis::default();
    let has_frames = lines.iter().any(|line| is_inner(line));
    let find = if has_frames { any_head } else { head };
    // The exception is named in the trace's first lines, or at the end of the message that the frames follow.
    let before_frames = lines.iter().take_while(|line| !is_inner(line));
    let mut named = before_frames.clone().find_map(|line| head(line).map(|head| (line, head)));
    if named.is_none() {
        named = before_frames
            .clone()
            .find_map(|line| find(line).filter(|head| head.kind.contains('.')).map(|head| (line, head)));
    }
    match named {
        Some((line, head)) => {
            analysis.exception = Some(head.kind.to_owned());
            // The text may go on until the first frame.
            let behind = lines
                .iter()
                .skip_while(|other| !std::ptr::eq(**other, *line))
                .skip(1)
                .take_while(|line| !is_inner(line));
            let text = behind.fold(head.text.to_owned(), |text, line| text + "\n" + line.trim_end());
            let text = text.split(" ---> ").next().unwrap_or(&text).trim().trim_end_matches('{').trim_end().to_owned();
            analysis.text = Some(text);
            push_inner_heads(head.text, &mut analysis);
        }
        None => {
            let first = message.lines().next().unwrap_or(message);
            let found = head(first).or_else(|| message.lines().last().and_then(head));
            let found = found.or_else(|| ruby_named(first, lines).or_else(|| ruby_named(lines.first()?, lines)));
            // `Request failed: java.lang.IllegalStateException: text`
            let found = found.or_else(|| {
                let in_text = || first.match_indices(' ').find_map(|(at, _)| head(&first[at + 1..]));
                if has_frames { in_text() } else { None }
            });
            if let Some(head) = found {
                analysis.exception = Some(head.kind.to_owned());
                analysis.text = Some(head.text.to_owned());
                push_inner_heads(head.text, &mut analysis);
            }
        }
    }
    // Where the root was raised: the frames behind its name, or, where inner ones come first, those on top.
    let mut root_at = 0;
    let mut wrapped = false;
    for (at, line) in lines.iter().enumerate() {
        let text = line.trim_start();
        if let Some(rest) = line.strip_prefix("Caused by: ").or_else(|| text.strip_prefix("[cause]: ")) {
            if let Some(head) = any_head(rest) {
                analysis.causes.push(head.kind.to_owned());
                analysis.root_text = Some(head.text.to_owned());
                root_at = at;
            }
        } else if let Some(rest) = line.strip_prefix("Wrapped by: ").or_else(|| line.strip_prefix("Next ")) {
            if let Some(head) = any_head(rest) {
                // logback's %rEx prints the root first, and so does PHP.
                if !wrapped {
                    analysis.root_text = analysis.text.clone();
                }
                wrapped = true;
                analysis.causes.splice(0..0, analysis.exception.take());
                analysis.exception = Some(head.kind.to_owned());
                analysis.text = Some(head.text.to_owned());
            }
        } else if let Some(rest) = text.strip_prefix("---> ")
            && let Some(head) = any_head(rest)
        {
            analysis.causes.push(head.kind.to_owned());
            analysis.root_text = Some(head.text.to_owned());
            push_inner_heads(head.text, &mut analysis);
        }
    }
    let root = &lines[root_at.min(lines.len())..];
    let frames = root
        .iter()
        .skip(usize::from(root_at > 0))
        .skip_while(|line| !is_inner(line))
        .take_while(|line| !line.starts_with("Caused by: ") && !line.trim_start().starts_with("Suppressed: "));
    let names: Vec<String> = frames.filter_map(|line| at_function(line)).collect();
    analysis.place = names.iter().find(|name| is_own(name)).or_else(|| names.first()).cloned();
    analysis
}

/// .NET puts inner exceptions on the outer one's line.
fn push_inner_heads(text: &str, analysis: &mut Analysis) {
    for part in text.split(" ---> ").skip(1) {
        if let Some(head) = any_head(part) {
            analysis.causes.push(head.kind.to_owned());
            analysis.root_text = Some(head.text.to_owned());
        }
    }
}

/// `Type (text):`, as Rails writes an exception.
fn rails_head(line: &str) -> Option<Head<'_>> {
    let (kind, text) = line.trim().strip_suffix("):")?.split_once(" (")?;
    (is_ruby_type(kind) && !is_traceback(line)).then_some(Head { kind, text })
}

/// The same, also behind other words, or `text (Type)`, as Ruby's Logger writes it, above frames.
fn ruby_named<'a>(message: &'a str, lines: &[&str]) -> Option<Head<'a>> {
    lines.iter().find_map(|line| ruby_frame(line))?;
    let behind_words = || {
        let end = message.find(" (")?;
        rails_head(&message[message[..end].rfind(' ')? + 1..])
    };
    let logger = || {
        let (text, kind) = message.trim().strip_suffix(')')?.rsplit_once(" (")?;
        is_ruby_type(kind).then_some(Head { kind, text })
    };
    rails_head(message).or_else(behind_words).or_else(logger)
}

fn is_ruby_type(kind: &str) -> bool {
    kind.split("::").all(|part| {
        part.starts_with(|c: char| c.is_ascii_uppercase()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

fn ruby(lines: &[&str]) -> Analysis {
    let mut analysis = Analysis::default();
    let mut raised = lines.iter().enumerate().filter_map(|(at, line)| Some((at, ruby_head(line)?)));
    let Some((first, (place, head))) = raised.next() else { return analysis };
    let behind = lines[first + 1..].iter().take_while(|line| !is_inner(line) && ruby_head(line).is_none());
    let text = behind.fold(head.text.to_owned(), |text, line| text + "\n" + line);
    analysis.exception = Some(head.kind.to_owned());
    analysis.text = Some(text.split("\n\n").next().unwrap_or_default().trim().to_owned());
    // Causes stand below what they caused.
    let mut root = (first, place);
    for (at, (place, head)) in raised {
        analysis.causes.push(head.kind.to_owned());
        analysis.root_text = Some(head.text.to_owned());
        root = (at, place);
    }
    let frames = lines[root.0 + 1..].iter().filter_map(|line| ruby_frame(line));
    let names: Vec<String> = [root.1].into_iter().chain(frames).map(ruby_function).collect();
    analysis.place = names.iter().find(|name| is_own(name)).or_else(|| names.first()).cloned();
    analysis
}

/// Of `app/pay.rb:12:in 'block in Pay#charge'`: `pay.rb Pay#charge`.
fn ruby_function(frame: &str) -> String {
    let (place, function) = frame.split_once(":in ").unwrap_or((frame, ""));
    let function = function.trim_matches(['\'', '`']);
    let function = function.rsplit_once(" in ").map_or(function, |(_, function)| function);
    // Rails numbers the functions that it makes of templates.
    let function = function.trim_end_matches(|c: char| c.is_ascii_digit() || c == '_');
    let is_foreign = ["/gems/", "/lib/ruby/", "<internal:"].iter().any(|part| place.contains(part));
    format!("{}{} {function}", if is_foreign { LIBRARY } else { "" }, file_name(place))
}

/// The function of an `at` frame, without what the compiler numbers.
fn at_function(line: &str) -> Option<String> {
    if let Some(frame) = ruby_frame(line) {
        return Some(ruby_function(frame));
    }
    let text = line.trim_start();
    if let Some(function) = elixir_frame(text) {
        let is_foreign = ["(elixir ", "(stdlib ", "(kernel ", "(erts "].iter().any(|start| text.starts_with(start));
        return Some(format!("{}{function}", if is_foreign { LIBRARY } else { "" }));
    }
    if let Some((name, place)) = browser_frame(text) {
        return Some(stable_function(&format!("{name} {}", file_name(place))));
    }
    if let Some((place, function)) = text.strip_prefix('#').and_then(|rest| rest.split_once(": ")) {
        // PHP: `#0 /app/a.php(7): A->b('text')`.
        let function = function.split('(').next().unwrap_or(function);
        return Some(format!("{}{function}", if place.contains("/vendor/") { LIBRARY } else { "" }));
    }
    let rest = line.trim_start_matches([' ', '\t']).strip_prefix("at ")?;
    let rest = rest.strip_prefix("async ").unwrap_or(rest);
    let file = rest.split_once('(').map_or(rest, |(_, file)| file);
    let is_foreign = file.contains("node_modules") || file.starts_with("node:") || file.contains("internal/");
    let name = match rest.find(['(', ' ']) {
        Some(end) if end > 0 => rest[..end].to_owned(),
        _ if !rest.contains('(') => file_name(rest).to_owned(),
        _ => return None,
    };
    // `java.base/` is a module; what follows `$$` names a lambda or a proxy anew in each process.
    let name = name.split("$$").next().unwrap_or(&name);
    let name = name.rsplit('/').next().unwrap_or(name).to_owned();
    let name = if is_foreign { format!("node_modules.{name}") } else { name };
    // `<anonymous>` of different files are different functions.
    let name = if name.contains("<anonymous>") { format!("{name} {}", file_name(file)) } else { name };
    Some(stable_function(&name))
}

/// `/app/src/cart.js:10:5)` is `cart.js`: folders change with a deployment, lines with each edit.
fn file_name(path: &str) -> &str {
    let path = path.trim_end_matches(')');
    let path = path.rsplit(['/', '\\']).next().unwrap_or(path);
    path.split(':').next().unwrap_or(path)
}

/// Compilers number lambdas, proxies and closures anew with each build.
fn stable_function(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for part in name.split('$') {
        let part = part.trim_end_matches(|c: char| c.is_ascii_digit());
        if part.is_empty() {
            continue;
        }
        if !out.is_empty() {
            out.push('$');
        }
        out.push_str(part);
    }
    // .NET: `<Load>d__12.MoveNext`, `<>c__DisplayClass1_0.<Run>b__3`; Rust: `::h0123456789abcdef`; Go: `func1.2`.
    let out = out.split("::h").next().filter(|head| out.len() == head.len() + 19).map_or(out.clone(), str::to_owned);
    let mut stable = String::with_capacity(out.len());
    for c in out.chars() {
        if !(c.is_ascii_digit() && stable.ends_with("__") || c.is_ascii_digit() && stable.ends_with("func")) {
            stable.push(c);
        }
    }
    stable
}

/// In front of functions whose names do not say that they are of a library.
const LIBRARY: &str = "library ";

/// Not of a language's library or a well-known framework.
fn is_own(name: &str) -> bool {
    const FOREIGN: [&str; 63] = [
        "java.",
        "javax.",
        "jakarta.",
        "jdk.",
        "sun.",
        "com.sun.",
        "kotlin.",
        "kotlinx.",
        "scala.",
        "groovy.",
        "akka.",
        "org.springframework.",
        "org.apache.",
        "org.hibernate.",
        "org.eclipse.",
        "org.jboss.",
        "org.postgresql.",
        "org.h2.",
        "com.mysql.",
        "oracle.",
        "com.zaxxer.",
        "com.fasterxml.",
        "com.google.",
        "io.netty.",
        "io.grpc.",
        "io.micronaut.",
        "io.quarkus.",
        "io.vertx.",
        "reactor.",
        "feign.",
        "okhttp3.",
        "redis.",
        "io.lettuce.",
        "software.amazon.",
        "com.amazonaws.",
        "org.slf4j.",
        "ch.qos.",
        "org.junit.",
        "System.",
        "Microsoft.",
        "Npgsql.",
        "MySql.",
        "StackExchange.",
        "Newtonsoft.",
        "node_modules.",
        LIBRARY,
        "process.",
        "Module.",
        "Function.",
        "Promise.",
        "new Promise",
        "runtime.",
        "runtime/",
        "testing.",
        "net/http.",
        "net.",
        "database/sql.",
        "reflect.",
        "sync.",
        "std::",
        "core::",
        "alloc::",
        "tokio::",
    ];
    const RUNTIME: [&str; 6] = ["panic", "rust_begin_unwind", "__rust_", "backtrace::", "log::", "<"];
    !FOREIGN.iter().any(|start| name.starts_with(start)) && !RUNTIME.iter().any(|start| name.starts_with(start))
}

fn python(lines: &[&str]) -> Analysis {
    let mut analysis = Analysis::default();
    let mut raised: Vec<Head> = Vec::new();
    let mut texts: Vec<String> = Vec::new();
    let is_group = lines.iter().any(|line| line.contains("Exception Group Traceback"));
    let mut place: Option<String> = None;
    let mut own_place: Option<String> = None;
    let mut block_places: Vec<Option<String>> = Vec::new();
    let mut in_trace = false;
    let mut in_text = false;
    for line in lines {
        let line = if is_group {
            line.trim_start_matches([' ']).trim_start_matches(['|', '+']).strip_prefix(' ').unwrap_or("")
        } else {
            line
        };
        if is_group && line.starts_with("-") || line.starts_with("+---") || line.starts_with("+-+") {
            // What follows are the group's members, raised before it.
            break;
        }
        if is_traceback(line) {
            (in_trace, in_text, place, own_place) = (true, false, None, None);
        } else if is_python_link(line) || line == "Call stack:" {
            in_text = false;
        } else if in_trace && let Some(frame) = python_frame(line) {
            if let Some((path, rest)) = frame.split_once('"') {
                let function = rest.split(", in ").nth(1).unwrap_or("").trim();
                let name = format!("{} {function}", file_name(path).trim_end_matches(".py"));
                let is_foreign =
                    ["site-packages", "dist-packages", "/lib/python", "<frozen"].iter().any(|part| path.contains(part))
                        || path.starts_with('<');
                if !is_foreign {
                    own_place = Some(name.clone());
                }
                place = Some(name);
            }
        } else if in_trace && !line.is_empty() && !line.starts_with([' ', '\t']) {
            let head = any_head(line).unwrap_or(Head { kind: line.split([':', ' ']).next().unwrap_or(line), text: "" });
            raised.push(head);
            texts.push(head.text.to_owned());
            block_places.push(own_place.take().or(place.take()));
            (in_trace, in_text) = (false, true);
        } else if in_text && !line.trim().is_empty() {
            if let Some(text) = texts.last_mut() {
                text.push('\n');
                text.push_str(line.trim_end());
            }
        } else if line.trim().is_empty() {
            in_text = in_text && !line.is_empty();
        }
    }
    if let Some(last) = raised.last() {
        analysis.exception = Some(last.kind.to_owned());
        analysis.text = texts.last().cloned();
        analysis.causes = raised.iter().rev().skip(1).map(|head| head.kind.to_owned()).collect();
        analysis.root_text = (raised.len() > 1).then(|| texts[0].clone());
        analysis.place = block_places.into_iter().next().flatten();
    }
    analysis
}

fn rust(lines: &[&str]) -> Analysis {
    let at = lines.iter().position(|line| is_rust_panic(line)).unwrap_or(0);
    let rest = lines[at].split(" panicked at ").nth(1).unwrap_or("");
    let (text, place) = match rest.strip_prefix('\'').and_then(|rest| rest.rsplit_once("', ")) {
        // Before Rust 1.73 the text stood on the same line.
        Some((text, place)) => (text.to_owned(), place),
        None => {
            let is_text =
                |line: &&&str| !line.starts_with("stack backtrace:") && !line.starts_with("note: ") && !line.is_empty();
            (
                lines[at + 1..].iter().take_while(is_text).copied().collect::<Vec<_>>().join("\n"),
                rest.trim_end_matches(':'),
            )
        }
    };
    let functions = lines.iter().filter_map(|line| {
        let (number, name) = line.trim_start().split_once(": ")?;
        number
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| stable_function(name.trim().split_once(" - ").map_or(name.trim(), |(_, name)| name)))
    });
    let own = functions.into_iter().find(|name| is_own(name) && !name.starts_with("rust_"));
    let file = place.split(':').next().unwrap_or(place).replace('\\', "/");
    // Folders in front of it change with the machine that builds, and with a library's version.
    let file = match file.rfind("/src/") {
        Some(at) if file.starts_with('/') => file[at + 1..].to_owned(),
        _ => file,
    };
    Analysis {
        exception: Some("panic".into()),
        text: Some(text),
        // Traces are often switched off in production; the file is always there.
        place: Some(if file.is_empty() { own.unwrap_or_default() } else { file }),
        ..Analysis::default()
    }
}

/// A function and, below it, where it stands.
pub fn is_go_place(name: &str, place: &str) -> bool {
    !name.starts_with([' ', '\t']) && name.contains('.') && place.starts_with('\t') && place.contains(".go:")
}

fn go(lines: &[&str], message: &str) -> Analysis {
    // The panic raised last stands last: `panic: a`, `\tpanic: b`.
    let kinds = [("panic: ", "panic"), ("fatal error: ", "fatal error")];
    let before = lines.iter().take_while(|line| !is_goroutine(line)).map(|line| line.trim_start_matches('\t'));
    let raised = before
        .filter_map(|line| kinds.iter().find_map(|(start, kind)| line.strip_prefix(start).map(|text| (*kind, text))))
        .last();
    let mut analysis = Analysis::default();
    if let Some((kind, text)) = raised {
        let text = text.trim_end_matches(" [recovered, repanicked]").trim_end_matches(" [recovered]");
        analysis.exception = Some(kind.to_owned());
        analysis.text = Some(text.to_owned());
    } else if let Some(text) = message.split("panic serving ").nth(1) {
        analysis.exception = Some("panic".to_owned());
        analysis.text = text.split_once(": ").map(|(_, text)| text.to_owned());
    } else if lines.first().is_some_and(|line| line.starts_with("SIGQUIT")) {
        analysis.exception = Some("SIGQUIT".to_owned());
        analysis.text = lines.first().map(|line| (*line).to_owned());
    }
    let function = |line: &&str| {
        let name = line.trim_end();
        let name = if is_go_function(name) {
            let open = name.rfind('(').unwrap_or(name.len());
            // Arguments may hold parentheses of their own, a receiver stands before the last dot.
            name[..open].to_owned()
        } else {
            name.to_owned()
        };
        stable_function(&name)
    };
    let pairs = lines
        .iter()
        .zip(lines.iter().skip(1))
        .filter(|(name, place)| is_go_place(name, place) && !name.starts_with("created by "));
    // Behind the call of panic stands who called it.
    let names: Vec<String> = pairs.map(|(name, _)| function(name)).collect();
    let from = names.iter().position(|name| name == "panic" || name == "runtime.gopanic").map_or(0, |at| at + 1);
    analysis.place = names[from..].iter().find(|name| is_own(name)).or_else(|| names.first()).cloned();
    analysis
}
