pub mod rerun;
pub mod run;
pub mod status;
pub mod watch;
