//! Readers of OpenAPI hold the edge to what it tells of itself.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests_landscape::{Landscape, python, tools, until};
use tokio::process::Command;

const SOON: Duration = Duration::from_secs(30);
/// What of an answer schemathesis compares with the document.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";

#[tokio::test(flavor = "multi_thread")]
async fn the_document_is_valid_and_the_edge_does_what_it_says() -> Result<()> {
    let house = Landscape::demo(&["--no-traffic"]).await?;
    until("the document tells of the shop", SOON, || async {
        Ok(house.get("/openapi.json").await?.text().contains("/v1/products/{product_id}"))
    })
    .await?;
    let folder = tempfile::tempdir()?;
    for path in ["/openapi.json", "/openapi/shop.composite.v1.json"] {
        let answer = house.get(path).await?;
        ensure!(answer.status == 200, "{path}: {answer:?}");
        let file = folder.path().join("openapi.json");
        std::fs::write(&file, answer.text())?;
        let mut validator = Command::new(tools::python("openapi-spec-validator")?);
        validator.args(["--schema", "3.1"]).arg(&file);
        python::done(validator).await?;
        let text = answer.text();
        ensure!(text.contains("Gets a product") || text.contains("product"), "comments are told: {text}");
    }
    let mut asked = Command::new(tools::python("schemathesis")?);
    asked.arg("run").arg(format!("http://{}/openapi.json", house.address("edge"))).current_dir(folder.path());
    asked.args(["--checks", CHECKS, "--phases", "examples,coverage,fuzzing", "--max-examples", "10"]);
    asked.args(["--generation-deterministic", "--include-method", "GET", "--exclude-path-regex", ":watch$"]);
    python::done(asked).await?;
    house.stop().await
}
