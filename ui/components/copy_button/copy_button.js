const CONFIRM_MS = 2000;

export default function ({ data, parentElement }) {
  const button = parentElement.querySelector("button");
  const label = parentElement.querySelector("span");
  label.textContent = data.label;
  button.onclick = async () => {
    try {
      await copy(data.text);
      label.textContent = data.copied;
    } catch {
      label.textContent = data.failed;
    }
    setTimeout(() => { label.textContent = data.label; }, CONFIRM_MS);
  };
}

async function copy(text) {
  // Browsers have a clipboard only on pages that came over HTTPS or from this machine.
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const field = document.createElement("textarea");
  field.value = text;
  document.body.append(field);
  field.select();
  const copied = document.execCommand("copy");
  field.remove();
  if (!copied) throw new Error("refused");
  return undefined;
}
