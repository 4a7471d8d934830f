//! The REST API before the messages: `GET /getMessages`, pages in parallel under one limit of requests a second. The
//! bytes of a message are those of the page. Redirects are not followed, so that the token goes to no other host.

mod answer;
mod client;
mod drain;
mod listing;
mod message;
mod pace;
mod shared_pace;
mod token;

pub use crate::api_error::ApiError;
pub use client::{Api, TimeRange};
pub use drain::ApiDrain;
pub use listing::{Listing, ListingCursor};
pub use message::{Element, element};
pub use pace::{Granted, OwnPace, Pace, Turns, reserve};
pub use shared_pace::SharedPace;
