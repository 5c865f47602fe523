//! From flags to a plan.

use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ballast_loadgen::plan::profile_file::ProfileFile;
use ballast_loadgen::plan::replay::{Replay, ReplayOptions};
use ballast_loadgen::plan::{
    Churn, Cores, Pacing, Plan, Profile, Protocol, Request, Scheme, Spread, Target, Template,
    Think, Timeouts, Url,
};

use super::args::{Arrivals, AskArgs, LoadArgs, RunArgs, SpeakArgs};

/// How long a run is when nothing says so.
const DURATION: Duration = Duration::from_secs(10);
/// Bytes in the body of a POST when nothing says so.
const BODY_BYTES: usize = 16;
/// What is no URL, but belongs elsewhere on the command line.
const COMMANDS: [&str; 4] = ["compare", "ab", "worker", "coordinate"];
/// The largest body: it is kept in memory, and sent from there.
const BODY_MOST: usize = 256 << 20;

/// A plan and what its user ought to know.
#[derive(Debug)]
pub struct Ready {
    /// What to do.
    pub plan: Plan,
    /// What was left out, or taken otherwise than it might have been meant.
    pub notes: Vec<String>,
}

/// Returns the plan that the flags describe.
pub fn build(args: &RunArgs) -> Result<Ready> {
    let urls = urls(&args.ask)?;
    let protocol = protocol(&args.speak, &urls)?;
    check_paths(protocol, &urls)?;
    let mut notes = Vec::new();
    let requests = requests(&args.ask, protocol)?;
    let mut targets = urls
        .iter()
        .map(|(weight, url)| target(*weight, url, &requests, &args.speak))
        .collect::<Result<Vec<_>>>()?;
    let replay = replay(&args.load, &mut targets, &mut notes)?;
    let (pacing, duration) = pacing(&args.load, replay.as_ref())?;
    let cores = match &args.machine.cores {
        Some(cores) => cores.resolve(&Cores::allowed()).context("--cores")?,
        None => Vec::new(),
    };
    let plan = Plan {
        targets,
        protocol,
        pacing,
        duration,
        connections: args.wire.connections,
        churn: Churn {
            requests_per_connection: args.wire.requests_per_connection,
            connections_per_second: args.wire.connections_per_second,
            reset: args.wire.reset,
        },
        timeouts: Timeouts {
            connect: args.wire.connect_timeout,
            request: args.wire.timeout,
        },
        checks: args.judge.check.clone(),
        request_ids: args
            .ask
            .request_ids
            .then(|| format!("{:x}", std::process::id())),
        records: false,
        seed: args.load.seed,
        engine: args.machine.engine,
        cores,
        replay: replay.map(|replay| Arc::new(replay.picks)),
    };
    plan.validate(plan.lanes())?;
    Ok(Ready { plan, notes })
}

fn urls(ask: &AskArgs) -> Result<Vec<(u32, Url)>> {
    let plain = ask.urls.iter().map(|url| (1, url));
    let weighted = ask.targets.iter().map(|spec| (spec.weight, &spec.url));
    let all = plain
        .chain(weighted)
        .map(|(weight, url)| {
            ensure!(
                !COMMANDS.contains(&url.as_str()),
                "`{url}` is a command, and comes before every flag: ballast-loadgen {url} …"
            );
            Ok((weight, url.parse()?))
        })
        .collect::<Result<Vec<(u32, Url)>>>()?;
    ensure!(
        !all.is_empty(),
        "nothing to drive: give a URL such as http://127.0.0.1:8080/"
    );
    Ok(all)
}

fn protocol(speak: &SpeakArgs, urls: &[(u32, Url)]) -> Result<Protocol> {
    let (_, first) = &urls[0];
    let streams = speak.streams.unwrap_or(1);
    let flags = [
        (speak.http2, "--http2", Protocol::Http2 { streams }),
        (speak.grpc, "--grpc", Protocol::Grpc { streams }),
        (speak.websocket, "--websocket", Protocol::WebSocket),
        (speak.tcp_connect, "--tcp-connect", Protocol::TcpConnect),
        (speak.tcp_echo, "--tcp-echo", Protocol::TcpEcho),
        (speak.udp_echo, "--udp-echo", Protocol::UdpEcho),
    ];
    let flag = flags.into_iter().find(|(given, ..)| *given);
    for (_, url) in urls {
        ensure!(
            url.scheme.protocol() == first.scheme.protocol(),
            "one run speaks one protocol: {}:// and {}:// do not go together",
            first.scheme.name(),
            url.scheme.name()
        );
        if let Some((_, name, protocol)) = flag {
            ensure!(
                goes_with(protocol, url.scheme),
                "{name} does not go with {}://",
                url.scheme.name()
            );
        }
    }
    let asked = flag.map_or(first.scheme.protocol(), |(.., protocol)| protocol);
    let protocol = match asked {
        Protocol::Http1 { .. } => Protocol::Http1 {
            pipeline: speak.pipeline.unwrap_or(1),
        },
        Protocol::Http2 { .. } => Protocol::Http2 { streams },
        Protocol::Grpc { .. } => Protocol::Grpc { streams },
        other => other,
    };
    let pipelines = matches!(protocol, Protocol::Http1 { .. });
    let has_streams = matches!(protocol, Protocol::Http2 { .. } | Protocol::Grpc { .. });
    ensure!(
        speak.pipeline.is_none() || pipelines,
        "--pipeline is of HTTP/1.1; HTTP/2 and gRPC have --streams"
    );
    ensure!(
        speak.streams.is_none() || has_streams,
        "--streams is of HTTP/2 and gRPC; HTTP/1.1 has --pipeline"
    );
    Ok(protocol)
}

fn goes_with(protocol: Protocol, scheme: Scheme) -> bool {
    let http = matches!(scheme, Scheme::Http | Scheme::Https | Scheme::H2c);
    match protocol {
        Protocol::Http1 { .. } | Protocol::Http2 { .. } => http,
        Protocol::Grpc { .. } => http || matches!(scheme, Scheme::Grpc | Scheme::Grpcs),
        Protocol::WebSocket => http || matches!(scheme, Scheme::Ws | Scheme::Wss),
        Protocol::TcpConnect | Protocol::TcpEcho => scheme == Scheme::Tcp,
        Protocol::UdpEcho => scheme == Scheme::Udp,
    }
}

fn check_paths(protocol: Protocol, urls: &[(u32, Url)]) -> Result<()> {
    let root = Template::literal("/");
    for (_, url) in urls {
        match protocol {
            Protocol::Grpc { .. } if url.path == root => bail!(
                "gRPC needs the method in the path: {}://{}/package.Service/Method",
                url.scheme.name(),
                url.authority
            ),
            Protocol::TcpConnect | Protocol::TcpEcho | Protocol::UdpEcho if url.path != root => {
                bail!("{}:// has no path, only HOST:PORT", url.scheme.name())
            }
            _ => {}
        }
    }
    Ok(())
}

/// Returns the requests of each target; their paths are the URLs'.
fn requests(ask: &AskArgs, protocol: Protocol) -> Result<Vec<Request>> {
    let echoes = matches!(
        protocol,
        Protocol::WebSocket | Protocol::TcpEcho | Protocol::UdpEcho
    );
    let given = body(ask)?;
    let has_body = given.is_some();
    let filler = Template::literal(vec![b'x'; ask.body_bytes.unwrap_or(BODY_BYTES)]);
    let headers = ask
        .headers
        .iter()
        .map(|it| (it.name.clone(), it.value.clone()));
    let like = Request {
        headers: headers.collect(),
        ..Request::get(Template::default())
    };
    if let Some(share) = ask.post_ratio {
        return Ok(mixed(share, &like, given.unwrap_or(filler)));
    }
    let (method, body) = match (protocol, &ask.method) {
        (Protocol::Grpc { .. }, None) => (http::Method::POST, given.unwrap_or_default()),
        (Protocol::Grpc { .. }, Some(_)) => bail!("gRPC calls are always POST: leave --method out"),
        // Without a body an echo sends the request's number.
        _ if echoes => (http::Method::GET, given.unwrap_or_default()),
        (_, Some(method)) => (method.clone(), given.unwrap_or_default()),
        (_, None) if has_body => (http::Method::POST, given.unwrap_or_default()),
        (_, None) => (http::Method::GET, Template::default()),
    };
    Ok(vec![Request {
        method,
        body,
        ..like
    }])
}

fn mixed(share: f64, like: &Request, body: Template) -> Vec<Request> {
    const WHOLE: f64 = 1e6;
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the share is between 0 and 1"
    )]
    let weight = |share: f64| (share * WHOLE).round() as u32;
    let get = Request {
        weight: weight(1.0 - share),
        ..like.clone()
    };
    let post = Request {
        weight: weight(share),
        method: http::Method::POST,
        body,
        ..like.clone()
    };
    let mut both = vec![get, post];
    both.retain(|request| request.weight > 0);
    both
}

fn body(ask: &AskArgs) -> Result<Option<Template>> {
    if let Some(text) = &ask.body {
        return Ok(Some(Template::parse(text).context("--body")?));
    }
    if let Some(path) = &ask.body_file {
        let bytes = std::fs::read(path)
            .with_context(|| format!("--body-file: cannot read {}", path.display()))?;
        ensure!(
            bytes.len() <= BODY_MOST,
            "--body-file: {} has more than {BODY_MOST} bytes",
            path.display()
        );
        return Ok(Some(Template::literal(bytes)));
    }
    if let Some(bytes) = ask.body_bytes {
        ensure!(bytes <= BODY_MOST, "--body-bytes: at most {BODY_MOST}");
        return Ok(Some(Template::literal(vec![b'x'; bytes])));
    }
    Ok(None)
}

fn target(weight: u32, url: &Url, requests: &[Request], speak: &SpeakArgs) -> Result<Target> {
    let mut target = url.resolve()?;
    target.weight = weight;
    target.requests = requests
        .iter()
        .map(|request| Request {
            path: url.path.clone(),
            ..request.clone()
        })
        .collect();
    let asks_tls = speak.ca_file.is_some() || speak.insecure || speak.server_name.is_some();
    match &mut target.tls {
        Some(tls) => {
            if let Some(file) = &speak.ca_file {
                ensure!(
                    file.is_file(),
                    "--ca-file: there is no file {}",
                    file.display()
                );
            }
            tls.ca_file.clone_from(&speak.ca_file);
            tls.insecure = speak.insecure;
            if let Some(name) = &speak.server_name {
                tls.server_name.clone_from(name);
            }
        }
        None => ensure!(
            !asks_tls,
            "--ca-file, --insecure and --server-name are of TLS, and {}:// has none",
            url.scheme.name()
        ),
    }
    Ok(target)
}

fn replay(
    load: &LoadArgs,
    targets: &mut [Target],
    notes: &mut Vec<String>,
) -> Result<Option<Replay>> {
    let Some(path) = &load.replay else {
        return Ok(None);
    };
    let name = || format!("--replay: {}", path.display());
    let [target] = targets else {
        bail!("--replay asks one target: give one URL");
    };
    let file = std::fs::File::open(path).with_context(name)?;
    let options = ReplayOptions {
        speed: load.speed.unwrap_or(1.0),
        lenient: load.replay_lenient,
    };
    let replay = Replay::read(BufReader::new(file), options).with_context(name)?;
    target.requests = replay.requests(&target.requests[0]);
    if replay.skipped > 0 || replay.reordered > 0 {
        notes.push(format!(
            "{}: left out {} lines ({}), put {} in order",
            path.display(),
            replay.skipped,
            replay.first_skipped.as_deref().unwrap_or("none"),
            replay.reordered
        ));
    }
    Ok(Some(replay))
}

fn pacing(load: &LoadArgs, replay: Option<&Replay>) -> Result<(Pacing, Duration)> {
    let asked = load.duration;
    if let Some(replay) = replay {
        ensure!(
            load.think.is_none(),
            "--think is of a closed loop, and a log has its own timing"
        );
        let duration = asked.unwrap_or_else(|| replay.duration());
        return Ok((Pacing::Open(Arc::new(replay.profile())), duration));
    }
    let is_ramp = load.arrivals == Some(Arrivals::Ramp);
    ensure!(
        load.ramp_from.is_none() || is_ramp || (load.rate.is_some() && load.arrivals.is_none()),
        "--ramp-from is of a ramp: --rate N --ramp-from M"
    );
    let spread = match load.arrivals {
        Some(Arrivals::Poisson) => Spread::Poisson,
        Some(Arrivals::Uniform) => Spread::Uniform,
        _ => Spread::Even,
    };
    if load.profile.is_some() || load.profile_file.is_some() {
        ensure!(
            load.ramp_from.is_none() && !is_ramp,
            "a ramp and a profile are two shapes: give one"
        );
        ensure!(
            load.think.is_none(),
            "--think is of a closed loop, without --profile"
        );
    }
    let duration = asked.unwrap_or(DURATION);
    let profile = if let Some(path) = &load.profile_file {
        let (file, duration) = profile_file(path, load)?;
        let open = Profile::Curve {
            curve: file.curve,
            spread,
        };
        return Ok((Pacing::Open(Arc::new(open)), duration));
    } else if let Some(wave) = &load.profile {
        let curve = wave.curve(load.rate, duration).context("--profile")?;
        Profile::Curve { curve, spread }
    } else if let Some(rate) = load.rate {
        ensure!(
            load.think.is_none(),
            "--think is of a closed loop, without --rate"
        );
        level(rate, load)
    } else {
        ensure!(
            load.arrivals.is_none(),
            "--arrivals needs --rate: a closed loop has no schedule"
        );
        let think = load.think.unwrap_or(Think::None);
        return Ok((Pacing::Closed { think }, duration));
    };
    Ok((Pacing::Open(Arc::new(profile)), duration))
}

/// Returns the profile of `--rate`, with the gaps asked for.
pub fn level(rate: f64, load: &LoadArgs) -> Profile {
    match load.arrivals {
        Some(Arrivals::Ramp) => Profile::Ramp {
            from: load.ramp_from.unwrap_or(0.0),
            to: rate,
        },
        Some(Arrivals::Poisson) => Profile::Poisson { rate },
        Some(Arrivals::Uniform) => Profile::Uniform { rate },
        Some(Arrivals::Constant) => Profile::Constant { rate },
        None => match load.ramp_from {
            Some(from) => Profile::Ramp { from, to: rate },
            None => Profile::Constant { rate },
        },
    }
}

fn profile_file(path: &Path, load: &LoadArgs) -> Result<(ProfileFile, Duration)> {
    let name = || format!("--profile-file: {}", path.display());
    let file = ProfileFile::read(path, load.interpolate).with_context(name)?;
    let duration = match load.duration {
        Some(asked) => asked,
        None if file.duration.is_zero() => DURATION,
        None => file.duration,
    };
    Ok((file, duration))
}
