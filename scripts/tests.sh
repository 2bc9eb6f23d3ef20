#!/bin/sh
# Runs the tests: scripts/tests.sh PYTHON [arguments of pytest].
#
# Thousands of them wait for real servers, processes and browsers on a machine that others share, so that now and then one is starved.
# At most FEW that failed are run once more, one after the other and alone; they must pass there. What failed is shown either way: one that
# is often named here is a test to repair. Set FEW=0 to go without.
set -u

FEW=${FEW:-5}
python=$1
shift
"$python" -m pytest -q "$@"
status=$?
# 1 is "some tests failed"; whatever else went wrong is no matter of luck.
[ "$status" -eq 1 ] || exit "$status"
failed=$("$python" -m pytest -q --last-failed --last-failed-no-failures none --collect-only -n 0 | grep -c '::')
if [ "$failed" -eq 0 ] || [ "$failed" -gt "$FEW" ]; then
  exit "$status"
fi
echo "A second try, alone, for the $failed that failed ..."
exec "$python" -m pytest -q --last-failed --last-failed-no-failures none -n 0
