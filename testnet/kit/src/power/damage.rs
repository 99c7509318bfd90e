//! Files that are not what was written: the node goes on correctly, or stops with one line that says what to do.

use super::{
    case::Cases,
    check::{Before, no_contradiction},
    cut::{Cut, Fate},
    image::Image,
    record::{network_of, tls_of},
    shim::Settings,
    site::Site,
    tap::Tls,
};
use eyre::{Context as _, bail, ensure};
use rand::{RngExt as _, rngs::StdRng};
use std::{fs, path::Path, time::Duration};
use switchyard_node::config::Endpoints;
use switchyard_testnet_local::Client;
use tokio::time::Instant;

/// How long a damaged node may take to go on or to stop.
const PATIENCE: Duration = Duration::from_secs(40);
const POLL: Duration = Duration::from_millis(20);
const MORE: u64 = 3;
const SECTOR: usize = 512;
/// Words of which each line that says what to do has one.
const REMEDIES: [&str; 5] = ["move", "restore", "import", "make room", "use another"];

impl Image {
    /// Damages one file; says which and how. None if there is no file with anything in it.
    pub fn damage(&mut self, rng: &mut StdRng) -> Option<String> {
        let unused = |path: &str| path.ends_with("LOCK") || path.ends_with("lock") || path.contains("/LOG");
        let paths: Vec<String> = self
            .files
            .iter()
            .filter(|(path, content)| !content.is_empty() && !unused(path))
            .map(|(p, _)| p.clone())
            .collect();
        let path = paths.get(rng.random_range(0..paths.len().max(1)))?.clone();
        let content = self.files.get_mut(&path)?;
        let at = rng.random_range(0..content.len());
        let sector = at / SECTOR * SECTOR..content.len().min((at / SECTOR + 1) * SECTOR);
        let how = match rng.random_range(0..5) {
            0 => {
                content[at] ^= 1 << rng.random_range(0..8);
                format!("a bit flipped at {at}")
            }
            1 => {
                content.truncate(at);
                format!("cut off at {at}")
            }
            2 => {
                content[sector.clone()].fill(0);
                format!("zeros in {sector:?}")
            }
            3 => {
                content[sector.clone()].iter_mut().for_each(|byte| *byte = rng.random());
                format!("noise in {sector:?}")
            }
            _ => {
                self.files.remove(&path);
                "gone".into()
            }
        };
        Some(format!("{path}: {how}"))
    }
}

/// The one line with which a node has stopped, which says what to do.
fn last_line(log: &str, data: &Path) -> eyre::Result<String> {
    let lines: Vec<&str> = log.lines().filter(|line| line.starts_with("switchyard: ")).collect();
    let [line] = lines[..] else { bail!("not one line: {lines:?}\n{log}") };
    ensure!(log.lines().last() == Some(line), "not the last one: {line}\n{log}");
    ensure!(line.contains(&data.display().to_string()), "it names no file: {line}");
    ensure!(REMEDIES.iter().any(|remedy| line.contains(remedy)), "it does not say what to do: {line}");
    Ok(line.to_owned())
}

/// How a node took it.
enum End {
    /// It has gone on.
    WentOn(Endpoints),
    /// It has stopped, with this line.
    Stopped(String),
}

async fn end_of(site: &mut Site, height: u64) -> eyre::Result<End> {
    let (client, deadline) = (Client::new(), Instant::now() + PATIENCE);
    loop {
        if site.lives(0).is_err() {
            return Ok(End::Stopped(last_line(&site.log(0), &site.data(0))?));
        }
        if let Some(node) = site.dir().endpoints(0)?
            && let Ok(status) = client.status(&node.grpc).await
            && status.tip.is_some_and(|tip| tip.height >= height)
        {
            return Ok(End::WentOn(node));
        }
        ensure!(Instant::now() < deadline, "it neither goes on nor stops:\n{}", site.log(0));
        tokio::time::sleep(POLL).await;
    }
}

impl Cases<'_> {
    /// Damages one file of a network of one, whose process was killed at some moment.
    pub(super) async fn run_damaged(&self, dir: &Path, rng: &mut StdRng) -> eyre::Result<()> {
        let Cut { record, fates } = Cut::choose(&self.recording.trace, rng)?;
        ensure!(fates.len() == 1, "files are damaged in a network of one");
        let cut = Cut { record, fates: vec![Fate::Killed] };
        let mut images = cut.images(self.recording, None, rng)?;
        let Some(damage) = images[0].damage(rng) else { return Ok(()) };
        self.run_with(&cut, &images, dir).await.wrap_err_with(|| format!("cut {cut}, {damage}"))
    }

    async fn run_with(&self, cut: &Cut, images: &[Image], dir: &Path) -> eyre::Result<()> {
        fs::create_dir_all(dir)?;
        self.recording.prepare(dir, images, cut.record)?;
        let before = Before::of(self.recording, cut);
        let mut site = Site::open(&network_of(dir), &Tls::open(&tls_of(dir)), None).await?;
        site.start(0, self.shim, &Settings::default())?;
        match end_of(&mut site, before.height() + MORE).await? {
            End::Stopped(line) => fs::write(dir.join("line"), line)?,
            End::WentOn(node) => {
                if let Some((height, told)) = before.told
                    && let Ok(held) = Client::new().hub_hash(&node.grpc, height).await
                {
                    ensure!(held == told, "block {height} was final as {told}, and is {held}");
                }
                // Damage that nobody has looked at yet may be met while it stops.
                site.stop(0).await?;
            }
        }
        no_contradiction(before.votes[0].iter().chain(&site.votes(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;

    #[test]
    fn damage_is_to_one_file_that_matters() {
        let mut image = Image::default();
        for (path, content) in [("a", vec![7; 2000]), ("LOCK", vec![1]), ("store/LOG", vec![1]), ("empty", Vec::new())]
        {
            image.files.insert(path.into(), content);
        }
        for seed in 0..50 {
            let mut damaged = image.clone();
            let said = damaged.damage(&mut StdRng::seed_from_u64(seed)).unwrap();
            assert!(said.starts_with("a: ") && damaged.files.get("a") != image.files.get("a"), "{said}");
            damaged.files.insert("a".into(), vec![7; 2000]);
            assert_eq!(damaged, image);
        }
        assert_eq!(Image::default().damage(&mut StdRng::seed_from_u64(0)), None);
    }

    #[test]
    fn a_line_must_be_one_and_name_file_and_remedy() {
        let data = Path::new("/data");
        let judge = |log: &str| last_line(log, data).map_err(|error| error.to_string());
        assert!(judge("INFO a\nswitchyard: /data/store: bad; move it away\n").is_ok());
        assert!(judge("switchyard: /data/store: bad\n").unwrap_err().contains("what to do"));
        assert!(judge("switchyard: bad; move it away\n").unwrap_err().contains("no file"));
        assert!(judge("switchyard: /data: move\nswitchyard: /data: move\n").unwrap_err().contains("not one line"));
        assert!(judge("switchyard: /data: move\nINFO more\n").unwrap_err().contains("not the last"));
        assert!(judge("").is_err());
    }
}
