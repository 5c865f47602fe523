//! `ballast events`

use super::Client;
use crate::args::EventsArgs;
use crate::{Failure, render};

/// Prints events, one a line, in either format.
pub(super) async fn run(client: &Client, args: EventsArgs) -> Result<(), Failure> {
    let show = |event: &ballast_model::Event| {
        if client.is_json() {
            render::json_line(event)
        } else {
            render::line(&render::event_line(event))
        }
    };
    if args.follow {
        let mut stream = client.api.follow_events(args.after).await?;
        while let Some(event) = stream.next().await? {
            show(&event)?;
        }
        return Ok(());
    }
    for event in &client.api.events(args.after).await? {
        show(event)?;
    }
    Ok(())
}
