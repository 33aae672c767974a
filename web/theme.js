// Sets the remembered theme before the page is first painted. A browser that keeps nothing gets the system's.
try {
  const theme = localStorage.getItem("limbeck-theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // Storage is forbidden here: nothing was remembered.
}
