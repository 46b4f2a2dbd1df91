"""Mutation testing of `src/sdlb/core` and `src/sdlb/model`: `make mutate`.

    place      finds the one place of a mutation in a source file and changes it
    table      the hand-written mutations, from `mutations/*.toml`
    generated  mutations made by cosmic-ray; `explained.toml` lists those that no check can find, with the reason
    checks     the table of checks that look for a mutation: unit tests, simulator, exploration
    reach      which functions each unit test calls, so that only those are run that can find a mutation
    sandbox    a copy of the sources, and one check run in it under a limit of CPU time
    run        all checks on one mutation; many mutations in parallel
    report     the table that is printed

Each mutation is applied to a copy of the sources, and every check runs there in a fresh process. Times are CPU seconds,
so a busy machine does not change a verdict.
"""
