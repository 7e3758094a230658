//! Services that break: the caller gets a proper error, the edge holds little, and nothing stays behind.

use std::time::Duration;

use ninefold_gateway::Config;

use crate::client::{ask, raw};
use crate::script::{self, Script};

fn impatient() -> Config {
    Config { deadline: Duration::from_millis(500), ..Config::default() }
}

async fn until_left(script: &Script) {
    let left = async {
        while script.answers.count() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), left).await.expect("nothing is left of the call");
}

#[tokio::test]
async fn a_service_that_answers_garbage_is_told_so_and_the_next_call_is_answered() {
    let (house, _) = script::start(Config::default()).await;
    for (id, status) in [("text", 502), ("flag", 502), ("cut", 502), ("no-message", 502), ("two", 502), ("huge", 502)] {
        let answer = ask(house.edge, "GET", &format!("/people/{id}"), "").await;
        assert_eq!(answer.status, status, "{id}: {}", answer.text());
        assert_eq!(answer.json()["details"][0]["reason"], "ANSWER_MALFORMED", "{id}");
        assert_eq!(ask(house.edge, "GET", "/people/7", "").await.status, 200, "after {id}");
    }
}

#[tokio::test]
async fn a_service_that_never_answers_or_stops_within_costs_its_caller_the_deadline_and_no_more() {
    let (house, script) = script::start(impatient()).await;
    for id in ["never", "silent", "then-silent"] {
        let answer = ask(house.edge, "GET", &format!("/people/{id}"), "").await;
        assert_eq!(answer.status, 504, "{id}: {}", answer.text());
    }
    until_left(&script).await;
}

#[tokio::test]
async fn a_stream_that_breaks_off_ends_with_an_error_that_the_caller_sees() {
    let (house, script) = script::start(Config::default()).await;
    for id in ["reset", "dies"] {
        let answer =
            raw(house.edge, &format!("GET /watch/{id} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).await;
        // What breaks may take what was said before it along: then nothing was begun, and the status tells.
        let begun = answer.starts_with("HTTP/1.1 200") && answer.contains("{\"error\":{");
        let refused = answer.starts_with("HTTP/1.1 50") && answer.contains("\"reason\":");
        assert!(begun || refused, "{id}: {answer}");
    }
    until_left(&script).await;
}
