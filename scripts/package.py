"""Looks into the unpacked packages, and writes the manifest and the code of the README beside them.

scripts/package runs this in the root of the project; the argument is the folder that holds packages/. With
--quick after it the manifest is that of the packages alone.
"""

import filecmp
import pathlib
import re
import sys
import tomllib

LICENCE = "ISC"
REPOSITORY = "https://github.com/ajwt/ajwt"

problems = []


def check(name, condition, problem):
    if not condition:
        problems.append(f"{name}: {problem}")


def look_into(package):
    """One package: its metadata, and whether all is there that its source folder holds. Returns its name."""
    metadata = tomllib.loads((package / "Cargo.toml").read_text())["package"]
    name = metadata["name"]
    source = pathlib.Path("crates") / name
    check(name, metadata.get("description"), "no description")
    check(name, metadata.get("license") == LICENCE, f"the licence is not {LICENCE}")
    check(name, metadata.get("repository") == REPOSITORY, f"the repository is not {REPOSITORY}")
    check(name, metadata.get("documentation"), "no documentation")
    check(name, metadata.get("readme") == "README.md", "no README.md")
    check(name, metadata.get("rust-version"), "no rust-version")
    # What crates.io accepts.
    keywords = metadata.get("keywords", [])
    check(name, 1 <= len(keywords) <= 5, "it should have one to five keywords")
    for keyword in keywords:
        check(name, re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_+-]{0,19}", keyword), f"keyword {keyword!r}")
    check(name, 1 <= len(metadata.get("categories", [])) <= 5, "it should have one to five categories")
    if (source / "src/lib.rs").exists():
        everything = metadata.get("metadata", {}).get("docs", {}).get("rs", {}).get("all-features")
        check(name, everything, "docs.rs would not show all features")

    # The tests and the list of the API stay at home; everything else is published, unchanged.
    home = ("Cargo.toml", "public-api.txt")
    for file in sorted(source.rglob("*")):
        path = file.relative_to(source)
        if file.is_dir() or path.parts[0] in ("tests", "target") or str(path) in home:
            continue
        packed = package / path
        check(name, packed.is_file() and filecmp.cmp(file, packed, shallow=False), f"{path} is missing or differs")
    check(name, (package / "LICENSE").is_file(), "no LICENSE")
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (source / "README.md").read_text()):
        check(name, (source / link).exists(), f"its README links to {link}, which is not there")
    return name


def write_readme(folder, packages, quick):
    """The README's manifest, with the packages in the place of crates.io, and each piece of its Rust.

    Its workspace has the packages as members: each can be compiled by itself, a program too, which no
    manifest can depend on. The README's package is left out of a quick look: some of its dependencies are not
    in Cargo.lock, and crates.io would be asked for them each time.
    """
    readme = pathlib.Path("README.md").read_text()
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", readme, re.DOTALL | re.MULTILINE)
    manifests = [text for language, text in blocks if language == "toml"]
    check("README.md", len(manifests) == 1, f"it has {len(manifests)} manifests instead of one")
    patches = "".join(f'{name} = {{ path = "packages/{package.name}" }}\n' for name, package in packages)
    # Dependencies are compiled as the workspace's are, so that both share them.
    profile = tomllib.loads(pathlib.Path("Cargo.toml").read_text())["profile"]["dev"]["package"]["*"]
    root = '[package]\nname = "readme"\nversion = "0.0.0"\nedition = "2024"\npublish = false\n\n'
    (folder / "Cargo.toml").write_text(
        ("" if quick else root + "\n".join(manifests))
        + "\n[patch.crates-io]\n"
        + patches
        + "\n[profile.dev.package.\"*\"]\n"
        + f'opt-level = {profile["opt-level"]}\ndebug = {str(profile["debug"]).lower()}\n'
        + "\n[workspace]\nresolver = \"3\"\nmembers = [\"packages/*\"]\n"
    )
    if quick:
        return
    pieces = folder / "src/readme"
    pieces.mkdir(parents=True)
    for language, text in blocks:
        if language == "rust":
            name = re.search(r"fn (\w+)", text)[1]
            (pieces / f"{name}.rs").write_text(text)


def main():
    folder = pathlib.Path(sys.argv[1])
    packages = [(look_into(package), package) for package in sorted((folder / "packages").iterdir())]
    write_readme(folder, packages, "--quick" in sys.argv[2:])
    if problems:
        sys.exit("\n".join(problems))
    print(f"{len(packages)} packages are complete")


main()
