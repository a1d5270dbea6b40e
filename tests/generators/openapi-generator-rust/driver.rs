//! Drives the client that openapi-generator makes for Rust: ../steps.ts says what each step does.

use std::collections::HashMap;
use std::fmt::Debug;

use client::apis::configuration::Configuration;
use client::apis::{Error, host_api, regions_api::*, sessions_api::*};
use client::models::*;
use report::{arguments, nothing, step, want};

mod report;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let (url, tomorrow_url, large_bytes) = arguments();
    let api = connect(&url);
    let opening = OpenSession { ttl_ms: Some(60_000), ..Default::default() };
    let session = open_session(&api, OpenSessionParams { open_session: opening }).await.expect("a session").id;

    let tensors = vec![
        TensorRequest::new("w".into(), Dtype::Bf16, vec![2, 3]),
        TensorRequest::new("b".into(), Dtype::F32, vec![3]),
    ];
    let weights = CreateRegion {
        model: Some("default".into()),
        name: Some("weights".into()),
        tensors: Some(tensors.clone()),
        session: Some(session.clone()),
        ..Default::default()
    };
    let mut region = Region::default();
    let with_ttl = CreateRegion { ttl_ms: Some(60_000), ..Default::default() };

    step("create", async {
        region = create(&api, weights.clone()).await?;
        want("owner.kind", region.owner.kind.as_str(), "session")?;
        want("session", region.session.as_ref(), Some(&session))?;
        want("tensors", region.tensors.len(), 2)?;
        want("w.byte_size", region.tensors[0].byte_size, 12)?;
        nothing()
    })
    .await;
    step("checksum-null", async {
        want("checksum", region.checksum.as_deref(), None)?;
        nothing()
    })
    .await;
    step("get", async {
        let detail = get(&api, &region.id).await?;
        want("id", &detail.id, &region.id)?;
        want("b.name", detail.tensors[1].name.as_str(), "b")?;
        nothing()
    })
    .await;
    step("get-by-name", async {
        let (model, name) = ("default".into(), "weights".into());
        let (version, prefer, if_match, if_none_match) = (None, None, None, None);
        let params = GetRegionByNameParams { model, name, version, prefer, if_match, if_none_match };
        want("id", get_region_by_name(&api, params).await?.id, region.id.as_str())?;
        nothing()
    })
    .await;
    step("list", async {
        let (name, version, session, state, label, limit, cursor) = (None, None, None, None, None, None, None);
        let model = Some("default".into());
        let params = ListRegionsParams { model, name, version, session, state, label, limit, cursor };
        let page = list_regions(&api, params).await?;
        want("items", page.items.len(), 1)?;
        want("id", page.items[0].id.as_str(), region.id.as_str())?;
        want("next_cursor", page.next_cursor, None)?;
        nothing()
    })
    .await;
    step("change", async {
        let changed = change(&api, &region.id).await?;
        want("revision", changed.revision, 2)?;
        want("labels.job", changed.labels["job"].as_str(), "nightly")?;
        nothing()
    })
    .await;
    step("stale", async {
        problem_of(change(&api, &region.id).await, 412, "revision-mismatch")?;
        nothing()
    })
    .await;
    step("seal", async {
        let sealing = Some(SealRegion { checksum: Some(true), ..Default::default() });
        let (id, if_match, if_none_match) = (region.id.clone(), None, None);
        let params = SealRegionParams { region: id, if_match, if_none_match, seal_region: sealing };
        region = seal_region(&api, params).await?;
        want("state", region.state, RegionState::Sealed)?;
        nothing()
    })
    .await;
    step("checksum", async {
        let checksum = region.checksum.as_ref().ok_or("there is none")?;
        want("algorithm", checksum.algorithm.as_str(), "xxh3-64-tree")?;
        want("value's length", checksum.value.len(), 16)?;
        nothing()
    })
    .await;
    step("not-found", async {
        problem_of(get(&api, "reg_missingmissingmissingmissi").await, 404, "region-not-found")?;
        nothing()
    })
    .await;
    step("name-taken", async {
        problem_of(create(&api, weights.clone()).await, 409, "name-taken")?;
        nothing()
    })
    .await;
    step("invalid", async {
        let labels = Some(HashMap::from([(String::new(), "x".into())]));
        let answer = create(&api, CreateRegion { labels, ..weights.clone() }).await;
        let issues = problem_of(answer, 422, "validation-failed")?.issues.ok_or("there are no issues")?;
        Ok(issues[0].path.clone())
    })
    .await;
    step("full", async {
        let answer = create(&api, CreateRegion { byte_size: Some(1 << 50), ..with_ttl.clone() }).await;
        let problem = problem_of(answer, 507, "pool-full")?;
        let requested = problem.requested_bytes.ok_or("no requested_bytes")?;
        let available = problem.available_bytes.ok_or("no available_bytes")?;
        Ok(format!("{} {requested} {available}", problem.code))
    })
    .await;
    if large_bytes > 0 {
        step("large", async {
            let large = create(&api, CreateRegion { byte_size: Some(large_bytes), ..with_ttl.clone() }).await?;
            delete(&api, large.id).await?;
            Ok(format!("{} {}", large.tensors[0].byte_size, large.storage.byte_size))
        })
        .await;
    }
    step("persist", async {
        let request = CreateRegion {
            model: Some("default".into()),
            name: Some("kept".into()),
            persist: Some(true),
            byte_size: Some(64),
            ..Default::default()
        };
        let kept = create(&api, request).await?;
        want("owner.kind", kept.owner.kind.as_str(), "persist")?;
        let deletion = delete(&api, kept.id).await?;
        want("state", deletion.state, deletion::State::Deleted)?;
        nothing()
    })
    .await;
    step("epoch", async { Ok(host_api::get_stats(&api).await?.epoch.to_string()) }).await;
    step("tomorrow", async {
        let tomorrows = connect(&tomorrow_url);
        let later = create(&tomorrows, CreateRegion { tensors: Some(tensors), ..with_ttl }).await?;
        let answer = get(&tomorrows, "reg_missingmissingmissingmissi").await;
        let code = problem_of(answer, 404, "region-not-found-of-tomorrow")?.code;
        Ok(format!("{} {} {} {code}", later.owner.kind, later.storage.kind, later.tensors[0].dtype))
    })
    .await;
    step("end", async {
        want("regions", end_session(&api, EndSessionParams { session }).await?.regions, 1)?;
        nothing()
    })
    .await;
}

fn connect(url: &str) -> Configuration {
    Configuration { base_path: url.into(), ..Default::default() }
}

async fn create(api: &Configuration, request: CreateRegion) -> Result<Region, Error<CreateRegionError>> {
    create_region(api, CreateRegionParams { create_region: request }).await
}

async fn get(api: &Configuration, id: &str) -> Result<RegionDetail, Error<GetRegionError>> {
    get_region(api, GetRegionParams { region: id.into(), if_match: None, if_none_match: None }).await
}

async fn change(api: &Configuration, id: &str) -> Result<Region, Error<ChangeRegionError>> {
    let labels = Some(HashMap::from([("job".into(), "nightly".into())]));
    let change_region = ChangeRegion { labels, ..Default::default() };
    let (region, if_match, if_none_match) = (id.into(), Some("\"1\"".into()), None);
    let params = ChangeRegionParams { region, change_region, if_match, if_none_match };
    client::apis::regions_api::change_region(api, params).await
}

async fn delete(api: &Configuration, region: String) -> Result<Deletion, Error<DeleteRegionError>> {
    delete_region(api, DeleteRegionParams { region, if_match: None, if_none_match: None }).await
}

/// The Problem of a refusal, as the client's model has it. (Of the client's own enum of failures it is always the first
/// variant that is read, whatever the status: all of them are Problems, and serde looks at nothing else.)
fn problem_of<Value: Debug, Failure: Debug>(
    answer: Result<Value, Error<Failure>>,
    status: u16,
    code: &str,
) -> Result<Problem, Box<dyn std::error::Error>> {
    match answer {
        Err(Error::ResponseError(failure)) => {
            want("status", failure.status.as_u16(), status)?;
            want("a Problem was read", failure.entity.is_some(), true)?;
            let problem: Problem = serde_json::from_str(&failure.content)?;
            want("status in the Problem", problem.status, i32::from(status))?;
            want("code", problem.code.as_str(), code)?;
            Ok(problem)
        }
        other => Err(format!("want {status}, got {other:?}").into()),
    }
}
