// Which paths there are. A new one is a file, a declaration in scan.h and a line here.
#include "scan.h"

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace eyechart {
namespace {

bool always() { return true; }

#if defined(__x86_64__)
bool has_avx512() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
}
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
#endif

#if defined(__aarch64__)
bool has_dot_products() {
#if defined(__ARM_FEATURE_DOTPROD)
    return true;
#elif defined(__linux__)
    return getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
#else
    return false;
#endif
}
#endif

constexpr Path PATHS[] = {
#if defined(__x86_64__)
    {"avx512", has_avx512, scan_avx512},
    {"avx2", has_avx2, scan_avx2},
#endif
#if defined(__aarch64__)
    {"neondot", has_dot_products, scan_neondot},
    {"neon", always, scan_neon},
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
