# Sourced by the other scripts: makes .venv with this package and extras of it, once for each pyproject.toml.
#   setup_env EXTRA[,EXTRA]
# Before anything is fetched it says what is large; what a stopped installation left is mended.
#   PYTHON=python3.12        makes .venv (default: python3)
#   MVLIB_SYSTEM_TORCH=1     .venv sees the packages of that Python, its torch for one
setup_env() {
    local extra=$1 stamp wanted python=${PYTHON:-python3} started=$SECONDS
    stamp=".venv/.installed-$extra"
    wanted=$(cksum <pyproject.toml)
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
        return
    fi
    if ! .venv/bin/python -c 'import pip' 2>/dev/null && # none yet, half of one, or of a Python that is gone
        ! .venv/bin/python -c 'import ensurepip; ensurepip.bootstrap(); import pip' >/dev/null 2>&1; then # another tool's
        "$python" -m venv --clear ${MVLIB_SYSTEM_TORCH:+--system-site-packages} .venv || return
    elif [ -n "${MVLIB_SYSTEM_TORCH:-}" ] && ! grep -q '^include-system-site-packages = true' .venv/pyvenv.cfg; then
        "$python" -m venv --without-pip --system-site-packages .venv || return
    fi
    .venv/bin/python scripts/before_install.py "$extra" "$python" || return
    if [ -t 1 ]; then
        .venv/bin/python -m pip install --disable-pip-version-check --editable ".[$extra]" || return
    else # a line for each package of 20 MB and more
        .venv/bin/python -u -m pip install --disable-pip-version-check --progress-bar off --editable ".[$extra]" |
            awk '/^ *(Downloading|Using cached) .*\([0-9.]+ [MG]B\)/ {
                     size = substr($(NF - 1), 2) + 0
                     if ($NF == "GB)" || size >= 20) { sub(/^ */, "  "); print; fflush() }
                 }'
        [ "${PIPESTATUS[0]}" = 0 ] || return 1
    fi
    echo "$wanted" >"$stamp"
    echo "installed in $((SECONDS - started)) s"
}
