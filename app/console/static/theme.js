// Runs before anything is drawn, so that a page never flashes in the other colours.
(() => {
  try {
    const kept = localStorage.getItem("theme");
    if (!localStorage.getItem("welcome-away")) document.documentElement.dataset.welcome = "yes"; // room for the first steps
    if (kept === "dark" || kept === "light") document.documentElement.dataset.theme = kept;
  } catch {} // storage may be forbidden: then the system's colours are taken
})();
