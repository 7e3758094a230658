//! Orders of a wanted size.

use std::fmt::Write as _;

/// The path that orders are sent to.
pub(crate) const PATH: &str = "/v1/customers/ada/orders";
/// The same as a call.
pub(crate) const CALL: &str = "/bench.edge.v1.OrderService/PlaceOrder";

/// An order with so many lines, as JSON.
pub(crate) fn json(lines: usize) -> String {
    let mut text = String::from(
        r#"{"orderId":"2026-000147","account":"9007199254740993","createTime":"2026-11-23T10:15:30.250Z","lines":["#,
    );
    for at in 0..lines {
        let comma = if at == 0 { "" } else { "," };
        // Writing to a string cannot fail.
        let _ = write!(text, r#"{comma}{{"sku":"SKU-{at:05}","quantity":{},"price":{}.25}}"#, at % 7 + 1, at * 3);
    }
    text.push_str(concat!(
        r#"],"address":{"name":"Ada Lovelace","street":"12 St James's Square","city":"London","#,
        r#""country":"GB"},"shipping":"SHIPPING_EXPRESS","notes":{"ring":"twice"},"gift":true}"#
    ));
    text
}

/// Lines that make an order of 0.6 KB.
pub(crate) const SMALL: usize = 7;
/// Lines that make an order of 5 KB.
pub(crate) const LARGE: usize = 97;
