//! Every method of the platform says who may call it. One that does not is nobody's where callers have to say who they
//! are, so it would be found out late.

use crate::tree;

const FOLDER: &str = "proto/ninefold/";

/// The methods of a contract, each with what stands between its name and the next one's.
fn methods(proto: &str) -> Vec<(&str, &str)> {
    let starts: Vec<usize> = proto.match_indices("\n  rpc ").map(|(at, _)| at).collect();
    let ends = starts.iter().skip(1).copied().chain([proto.len()]);
    starts
        .iter()
        .zip(ends)
        .map(|(start, end)| {
            let text = &proto[start + "\n  rpc ".len()..end];
            let text = text.split("\n}").next().unwrap_or(text);
            (text.split('(').next().unwrap_or(text), text)
        })
        .collect()
}

#[test]
fn every_method_of_the_platform_says_who_may_call_it() {
    let mut offences = Vec::new();
    let mut count = 0;
    for file in tree::files(".proto").into_iter().filter(|file| file.path.starts_with(FOLDER)) {
        for (name, text) in methods(&file.text) {
            count += 1;
            let option = ["option (ninefold.access.v1.access) = {", "option (access) = {"];
            if !option.iter().any(|option| text.contains(option)) || !text.contains("audience: AUDIENCE_") {
                offences.push(format!("{}: {name}", file.path));
            }
        }
    }
    assert!(count > 30, "only {count} methods were found");
    tree::none(
        "methods that do not say who may call them, such as `option (ninefold.access.v1.access) = {audience: \
         AUDIENCE_READERS};` (READERS see, INSTANCES join, MEMBERS are both, OPERATORS change, ADMINS do everything; \
         import \"ninefold/access/v1/options.proto\")",
        &offences,
    );
}
