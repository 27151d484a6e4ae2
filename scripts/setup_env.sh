# Sourced by the other scripts: makes .venv with this package and one extra of it, once for each pyproject.toml.
#   setup_env EXTRA
setup_env() {
    local extra=$1 stamp wanted
    stamp=".venv/.installed-$extra"
    wanted=$(cksum <pyproject.toml)
    [ -x .venv/bin/python ] || "${PYTHON:-python3}" -m venv .venv
    if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$wanted" ]; then
        echo "Installing mvlib[$extra] into .venv (torch is large: this takes a few minutes the first time)"
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[$extra]"
        echo "$wanted" >"$stamp"
    fi
}
