//! A holder's sheet: one page to be printed and put away, with the encrypted share, the same as a QR code, and what to do with
//! it in the night when custodians are lost.
//!
//! The page needs nothing but a browser: no script, no font, no picture from elsewhere. The code holds the armoured text as it
//! stands beside it, so that any reader's output is what `gpg --decrypt` takes.

use holdfast_core::ceremony::Manifest;
use qrcode::render::svg;
use qrcode::{EcLevel, QrCode};

use super::holders::Person;
use super::openpgp::readable;
use super::plan::Plan;

/// The page, with names in braces where something is put in.
const PAGE: &str = include_str!("sheet.html");

/// The most modules that a side of the code may have: printed as large as the page allows, each is then 0.6 mm, which telephones
/// still read. An RSA-4096 key's message needs 117.
const MODULES_MAX: usize = 137;

/// The most names in one list on the page, which has to stay one: the manifest has them all.
const NAMES_MAX: usize = 12;

/// The page of one holder.
pub(crate) fn render(plan: &Plan, manifest: &Manifest, person: &Person, text: &str) -> String {
    let holders = manifest.holders().iter().map(|holder| holder.name.as_str());
    let custodians = manifest.custodians().iter().map(|member| member.id.as_str());
    let day = plan.made_at.to_string();
    let fields = [
        ("{cluster}", plan.cluster.to_string()),
        ("{holder}", person.name.to_string()),
        ("{id}", plan.id.to_string()),
        ("{generation}", plan.generation.to_string()),
        ("{threshold}", plan.threshold.to_string()),
        ("{shares}", plan.shares().to_string()),
        ("{vault}", escaped(&plan.vault)),
        ("{day}", day.split('T').next().unwrap_or_default().to_owned()),
        ("{fingerprint}", readable(person.addressee.fingerprint())),
        ("{custodians}", listed(custodians)),
        ("{others}", listed(holders.filter(|name| *name != person.name.as_str()))),
        ("{text}", text.trim_end().to_owned()),
        ("{code}", code(text.trim_end())),
    ];
    fields.into_iter().fold(PAGE.to_owned(), |page, (name, value)| page.replace(name, &value))
}

/// Names, as many as there is room for.
fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.collect();
    match names.len() {
        0 => "nobody else".to_owned(),
        1..=NAMES_MAX => names.join(", "),
        all => format!("{} and {} more", names[..NAMES_MAX].join(", "), all - NAMES_MAX),
    }
}

/// The code as a drawing; where the text is too long for one that can be read from paper, words in its place.
fn code(text: &str) -> String {
    let levels = [EcLevel::M, EcLevel::L].into_iter();
    let codes = levels.filter_map(|level| QrCode::with_error_correction_level(text, level).ok());
    match codes.into_iter().find(|code| code.width() <= MODULES_MAX) {
        Some(code) => {
            let drawing = code.render::<svg::Color<'_>>().module_dimensions(1, 1).build();
            // A page has no place for the declaration of a document of its own.
            drawing.split_once("?>").map_or(drawing.clone(), |(_, drawing)| drawing.to_owned())
        }
        None => "<p>The text is too long for a code that can be read from paper: keep the file beside this sheet.</p>"
            .to_owned(),
    }
}

/// Text that comes from an argument, so that it is shown and not obeyed.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_drawn_for_every_key_that_servers_take_and_no_larger() {
        // The lengths of the texts that OpenBao's messages make, and something more: Curve25519, RSA-3072 and RSA-4096.
        for length in [350, 760, 935, 1200] {
            let drawing = code(&"a".repeat(length));
            assert!(drawing.starts_with("<svg ") && drawing.ends_with("</svg>"), "{length}: {}", &drawing[..40]);
        }
        assert!(code(&"a".repeat(2500)).starts_with("<p>"));
    }

    #[test]
    fn a_list_of_names_stays_short() {
        assert_eq!(listed([].into_iter()), "nobody else");
        assert_eq!(listed(["a", "b"].into_iter()), "a, b");
        assert_eq!(listed([&"a"; 15].into_iter().copied()), format!("{}a and 3 more", "a, ".repeat(11)));
    }

    #[test]
    fn an_argument_is_shown_and_not_obeyed() {
        assert_eq!(escaped("<a href=\"x\">&</a>"), "&lt;a href=&quot;x&quot;&gt;&amp;&lt;/a&gt;");
    }
}
