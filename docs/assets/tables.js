/* Wide tables scroll in a box of the theme's; by keyboard too, if one can get into it. */
const boxes = () => {
  for (const box of document.querySelectorAll(".md-typeset__scrollwrap")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
};
addEventListener("load", boxes);
addEventListener("resize", boxes);
