"""What to say to a name that no setting has."""

from collections.abc import Iterable

from radtransfer.errors import near_names
from radtransfer.synonyms import OPTIONS, SECTIONS, meant_names


def closest_setting(name: str, known: Iterable[str]) -> str:
    """A sentence: the settings that `name` may have meant, also in another section or without one; else what there is.

    Args:
        name: That no setting has.
        known: Dotted names of all settings.
    """
    known = list(known)
    section, _, last = name.rpartition(".")
    sections: dict[str, dict[str, str]] = {}
    for item in known:
        above, _, key = item.rpartition(".")
        sections.setdefault(above, {})[key] = item
    sections.pop("", None)
    same = [item for item in known if item.rpartition(".")[2] == last]
    lasts = {item.rpartition(".")[2]: item for item in known}
    same = same[:1] or [lasts[key] for key in meant_names(last, lasts, OPTIONS)]
    if not section and name not in sections:
        same += meant_names(name, sections, SECTIONS)
    if same:
        return f"Did you mean {' or '.join(map(repr, same))}?"
    if section in sections:
        near = [sections[section][key] for key in near_names(last, sections[section])]
    elif section:
        near = near_names(name, known)
    else:
        parts = {item.rpartition(".")[2]: item for item in known} | {item: item for item in sections}
        near = [] if name in sections else [parts[part] for part in near_names(name, parts)]
    if near:
        return f"Did you mean {' or '.join(map(repr, near))}?"
    for given in (name, section):
        if given in sections:
            return f"Keys of {given}: {', '.join(sections[given])}."
    return f"Sections: {', '.join(sections)}. `radtransfer configs show quickstart --full` lists every key."
