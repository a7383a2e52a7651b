// Which paths there are. A new one is a file, a declaration in scan.h and a line here.
#include "scan.h"

namespace eyechart {
namespace {

bool always() { return true; }

#if defined(__x86_64__)
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
#endif

constexpr Path PATHS[] = {
#if defined(__x86_64__)
    {"avx2", has_avx2, scan_avx2},
#endif
    {"portable", always, scan_portable},
};

}  // namespace

std::vector<Path> available_paths() {
    std::vector<Path> found;
    for (const Path& path : PATHS)
        if (path.runs_here()) found.push_back(path);
    return found;
}

}  // namespace eyechart
