"""The sheet of explanations as one HTML page: no scripts, no files beside it, no network; every name is escaped."""

from collections.abc import Sequence

from radtransfer.explanations.coarse_maps import coarse_map_note
from radtransfer.explanations.explained import Explained, Explanation
from radtransfer.explanations.pictures import color_stops, data_uri, overlay, picture
from radtransfer.explanations.randomization import depend_on_weights
from radtransfer.reports.numbers import number
from radtransfer.reports.style import STYLE
from radtransfer.safe_text import html_text as _e

_VERDICTS = {
    True: "With every weight redrawn the maps are other maps: they show what the network has learned.",
    False: "With every weight redrawn the maps are much the same, or their reverse: they show the images rather than "
    "what was learned. Do not rely on them; try another --layer.",
    None: "These maps are too few to tell whether they show what the network has learned. Explain more images.",
}

_STYLE = """
body { max-width: 70rem; }
.intro { display: grid; grid-template-columns: repeat(auto-fit, minmax(24rem, 1fr)); gap: 0 3rem; }
.intro figure { margin-top: .6rem; } .intro p { font-size: 1rem; }
.cases { display: grid; grid-template-columns: repeat(auto-fill, minmax(31rem, 1fr)); gap: 2rem 2.4rem; }
.cases.two { grid-template-columns: repeat(auto-fill, minmax(22rem, 1fr)); }
.case { margin: 0; break-inside: avoid; }
.case .pictures { display: flex; gap: .4rem; }
.case .pictures div { flex: 1; min-width: 0; }
.case img { border-radius: 2px; aspect-ratio: 1; }
.case small { display: block; color: var(--soft); font: .74rem/1.4 system-ui, "Segoe UI", Roboto, Arial, sans-serif; }
.case figcaption { margin: .35rem 0 0; } .case figcaption b { font-size: .95rem; }
.case.wrong .verdict { border-color: #a1260d; color: #a1260d; }
.bar { display: inline-block; width: 9rem; height: .8rem; border-radius: 2px; vertical-align: -.08rem; margin: 0 .5em; }
table.small { width: auto; }
@media (max-width: 40rem) { .intro, .cases, .cases.two { grid-template-columns: 1fr; } }
@media print { .cases { grid-template-columns: 1fr 1fr; gap: 6mm; } }
"""


def explanation_sheet(explained: Explained) -> str:
    """The page as text."""
    title = f"What {explained.given} looks at"
    body = f'<div class="intro">{_how_to_read(explained)}{_checks(explained)}</div>\n{_cases(explained)}'
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        f"<title>{_e(title)}</title>\n<style>{STYLE}{_STYLE}</style>\n</head>\n<body>\n"
        f"<header><h1>{_e(title)}</h1><p>Grad-CAM at {_e(_layer(explained))}</p>{_facts(explained)}</header>\n"
        f"<main>\n{body}\n</main>\n"
        "<footer><p>Written by radtransfer. Research software, not a medical device.</p></footer>\n</body>\n</html>\n"
    )


def _layer(explained: Explained) -> str:
    network, stage = explained.network, explained.network.stage
    height, width = network.grid
    named = f"the end of {stage} ({network.layer})" if stage else network.layer
    return f"{named}, a map of {height}×{width} for {network.image_size}×{network.image_size} pixels"


def _facts(explained: Explained) -> str:
    facts = {"images": f"{explained.images:,} {explained.what}"}
    if explained.mistakes is not None:
        facts["mistakes among them"] = f"{explained.mistakes:,}"
    facts["shown"] = f"{len(explained.explanations):,}"
    if explained.explanations[0].occlusion is not None:
        facts["agreement with occlusion, median"] = number(explained.agreement, 2)
    facts["agreement with random weights, median"] = number(explained.randomized[-1].correlation, 2)
    rows = "".join(f"<div><dt>{_e(name)}</dt><dd>{_e(value)}</dd></div>" for name, value in facts.items())
    return f'<dl class="facts">{rows}</dl>'


def _how_to_read(explained: Explained) -> str:
    about = "what the network said" if explained.target is None else explained.target
    occlusion = ""
    if (covered := explained.explanations[0].occlusion) is not None:
        occlusion = (
            f" Beside it, by how much the same log odds fall when each of {len(covered)}×{len(covered)} squares is "
            "covered with the image's mean colour: another way to ask the same, which shares nothing with the first "
            "but the network."
        )
    coarse = coarse_map_note(explained.network)
    note = f"<p><strong>Note:</strong> {_e(coarse)}.</p>" if coarse else ""
    stops = ", ".join(color_stops())
    return (
        '<section id="reading"><h2>How to read it</h2>'
        f"<p>Colour marks where the layer holds what raises the log odds of {_e(about)}; each picture has its own "
        f"scale.{occlusion} A map is no outline of a lesion and no proof: a place can matter for a reason that is not "
        f"medical.</p>{note}"
        f'<p><small>nothing<span class="bar" style="background: linear-gradient(to right, {stops})"></span>'
        "the most in this image; the white line encloses half of that and more</small></p></section>"
    )


def _checks(explained: Explained) -> str:
    rows = "".join(
        f'<tr><td class="name">{_e(step.what)}</td><td>{number(step.correlation, 2)}</td></tr>'
        for step in explained.randomized
    )
    verdict = _VERDICTS[depend_on_weights(explained.randomized, images=len(explained.explanations))]
    agreement = ""
    if explained.explanations[0].occlusion is not None:
        agreement = (
            "<p>Grad-CAM and occlusion: median rank correlation "
            f"{number(explained.agreement, 2)} over the images shown; 1 is the same order of places, 0 unrelated.</p>"
        )
    return (
        f'<section id="checks"><h2>Can the maps be trusted?</h2>{agreement}<p>{verdict}</p>'
        '<figure class="table"><figcaption>Median rank correlation with the maps of the trained network, from the '
        'output down one more part with random weights</figcaption><table class="small"><thead><tr>'
        '<th scope="col" class="name">random</th><th scope="col">correlation</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></figure></section>"
    )


def _cases(explained: Explained) -> str:
    without = explained.explanations[0].occlusion is None
    cases = "\n".join(_case(rank, item) for rank, item in enumerate(explained.explanations, start=1))
    order = (
        "Mistakes first, the surest first; then right answers, the least sure first."
        if explained.mistakes is not None
        else "The least sure first."
    )
    return (
        f'<section id="images"><h2>Images</h2><p>{order}</p>'
        f'<div class="cases{" two" if without else ""}">{cases}</div></section>'
    )


def _case(rank: int, item: Explanation) -> str:
    verdict, shown = item.verdict, picture(item.image)
    pictures = [("as the network sees it", shown), ("Grad-CAM", overlay(shown, item.heat))]
    if item.occlusion is not None:
        pictures.append(("occlusion", overlay(shown, item.occlusion)))
    name = item.path.replace("\\", "/").rpartition("/")[2]
    images = "".join(
        f'<div><img src="{data_uri(pixels)}" alt="{_e(f"{what}, image {rank}: {name}")}"><small>{what}</small></div>'
        for what, pixels in pictures
    )
    state = {True: "wrong", False: "right", None: "no label"}[verdict.wrong]
    truth = f"; labelled {_e(verdict.truth)}" if verdict.truth else ""
    agreement = "" if item.agreement is None else f"agreement {number(item.agreement, 2)}"
    nothing = "" if item.heat.any() else "nothing at this layer speaks for it"
    notes = _joined([agreement, nothing])
    return (
        f'<figure class="case{" wrong" if verdict.wrong else ""}"><div class="pictures">{images}</div>'
        f'<figcaption><span class="verdict">{state}</span> <b>{_e(verdict.name)} {verdict.probability:.3f}</b>{truth}'
        f"<br>{_e(item.path)}{notes}</figcaption></figure>"
    )


def _joined(notes: Sequence[str]) -> str:
    shown = "; ".join(note for note in notes if note)
    return f"<br>{shown}" if shown else ""
