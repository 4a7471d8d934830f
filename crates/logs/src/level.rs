/// How bad an entry is, in the words that all loggers' words are mapped to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
    Fatal,
}

impl Level {
    /// A logger's word, in any case. `None` for what no logger calls a level.
    pub fn from_word(word: &str) -> Option<Self> {
        let word = word.trim();
        // Go's slog counts between its words: `ERROR+2`.
        let word = match word.split_once(['+', '-']) {
            Some((word, steps)) if !steps.is_empty() && steps.bytes().all(|byte| byte.is_ascii_digit()) => word,
            _ => word,
        };
        // Longest known word; what is longer is text.
        if word.len() > 13 {
            return None;
        }
        Some(match word.to_ascii_lowercase().as_str() {
            "trace" | "trce" | "trc" | "trac" | "finest" | "finer" | "verbose" | "vrb" | "silly" => Level::Trace,
            "debug" | "dbug" | "dbg" | "debu" | "fine" | "config" => Level::Debug,
            "info" | "inf" | "information" | "informational" | "notice" | "note" | "log" | "default" | "http"
            | "system" | "progress" => Level::Info,
            "warn" | "warning" | "wrn" | "deprecated" => Level::Warn,
            "error" | "err" | "eror" | "erro" | "severe" | "fail" | "failure" | "fault" | "parse error" | "crash"
            | "supervisor" => Level::Error,
            "fatal" | "ftl" | "fata" | "fatal error" | "critical" | "crit" | "panic" | "dpanic" | "pani" | "pnc"
            | "emerg" | "emergency" | "alert" => Level::Fatal,
            _ => return None,
        })
    }

    /// The single letters of klog, glog and logcat.
    pub fn from_letter(letter: &str) -> Option<Self> {
        Some(match letter {
            "V" | "T" => Level::Trace,
            "D" => Level::Debug,
            "I" | "N" => Level::Info,
            "W" => Level::Warn,
            "E" => Level::Error,
            "F" | "C" | "A" => Level::Fatal,
            _ => return None,
        })
    }

    /// syslog: 0 emergency, 1 alert, 2 critical, 3 error, 4 warning, 5 notice, 6 informational, 7 debug.
    pub fn from_syslog(severity: u64) -> Option<Self> {
        Some(match severity {
            0..=2 => Level::Fatal,
            3 => Level::Error,
            4 => Level::Warn,
            5 | 6 => Level::Info,
            7 => Level::Debug,
            _ => return None,
        })
    }

    /// Node's pino and bunyan: 10 trace, 20 debug, 30 info, 40 warn, 50 error, 60 fatal. Below 8 it is syslog's (GELF).
    pub fn from_number(number: u64) -> Option<Self> {
        Some(match number {
            0..=7 => return Level::from_syslog(number),
            8..=19 => Level::Trace,
            20..=29 => Level::Debug,
            30..=39 => Level::Info,
            40..=49 => Level::Warn,
            50..=59 => Level::Error,
            60..=99 => Level::Fatal,
            // Java's util.logging and Google's cloud logging count in hundreds, in opposite directions above 800.
            100..=299 => Level::Info,
            300 | 400 => Level::Warn,
            500 => Level::Error,
            600 | 700 | 800 => Level::Fatal,
            900 => Level::Warn,
            1000 => Level::Error,
            _ => return None,
        })
    }

    /// Python's `levelno`: ten less than Node's for the same word.
    pub fn from_python(number: u64) -> Option<Self> {
        Level::from_number(number.checked_add(10)?)
    }

    /// OpenTelemetry's `SeverityNumber`, 1 to 24 in steps of four.
    pub fn from_otel(number: u64) -> Option<Self> {
        const LEVELS: [Level; 6] = [Level::Trace, Level::Debug, Level::Info, Level::Warn, Level::Error, Level::Fatal];
        LEVELS.get(usize::try_from(number.checked_sub(1)? / 4).ok()?).copied()
    }

    pub fn is_error(self) -> bool {
        self >= Level::Error
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Level::Trace => "TRACE",
            Level::Debug => "DEBUG",
            Level::Info => "INFO",
            Level::Warn => "WARN",
            Level::Error => "ERROR",
            Level::Fatal => "FATAL",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_and_numbers_of_all_loggers_become_six_levels() {
        for word in ["ERROR", "error", "Err", "SEVERE", "fail", "ERROR+2", "ERROR-1"] {
            assert_eq!(Level::from_word(word), Some(Level::Error), "{word}");
        }
        for word in ["FATAL", "CRITICAL", "crit", "panic", "DPANIC", "emerg", "ALERT"] {
            assert_eq!(Level::from_word(word), Some(Level::Fatal), "{word}");
        }
        assert_eq!(
            ["WARNING", "notice", "FINE", "x"].map(Level::from_word),
            [Some(Level::Warn), Some(Level::Info), Some(Level::Debug), None]
        );
        assert_eq!(
            [50, 60, 40, 3, 2].map(Level::from_number).map(|level| level.map(Level::is_error)),
            [true, true, false, true, true].map(Some)
        );
        assert_eq!([40, 50, 30].map(Level::from_python), [Some(Level::Error), Some(Level::Fatal), Some(Level::Warn)]);
        assert_eq!(
            [17, 20, 21, 16, 0, 25].map(Level::from_otel),
            [Some(Level::Error), Some(Level::Error), Some(Level::Fatal), Some(Level::Warn), None, None]
        );
    }
}
