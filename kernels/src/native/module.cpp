// What Python sees. `__init__.py` has checked the arguments and words the errors; types are checked here once more.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include "dots.h"
#include "scan.h"

namespace nb = nanobind;

namespace eyechart {
namespace {

using Codes = nb::ndarray<const int8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Singles = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Places = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

std::vector<std::string> names() {
    std::vector<std::string> found;
    for (const Path& path : available_paths()) found.push_back(path.name);
    return found;
}

Path path_named(const std::string& name) {
    for (const Path& path : available_paths())
        if (name == path.name) return path;
    throw std::invalid_argument("no path " + name);
}

Rows rows_of(const Singles& rows) { return {rows.data(), static_cast<int64_t>(rows.shape(1))}; }

template <class Number>
nb::ndarray<nb::numpy, Number, nb::ndim<1>> handed_over(std::vector<Number>&& numbers) {
    auto* kept = new std::vector<Number>(std::move(numbers));
    nb::capsule owner(kept, [](void* held) noexcept { delete static_cast<std::vector<Number>*>(held); });
    return {kept->data(), {kept->size()}, owner};
}

nb::tuple scan(
    const std::string& name,
    const Codes& codes,
    int64_t bound,
    const Singles& semantic,
    double min_single,
    const std::optional<Singles>& reference,
    double max_single,
    const std::optional<Places>& ids,
    int64_t start,
    int64_t stop,
    const std::optional<Places>& right,
    int64_t first,
    int64_t end) {
    const Path path = path_named(name);
    const int64_t columns = static_cast<int64_t>(codes.shape(1));
    const int64_t furthest = max_distance(columns);
    const Job job = {
        codes.data(),
        static_cast<int64_t>(codes.shape(0)),
        columns,
        static_cast<int32_t>(std::clamp<int64_t>(bound, -1, furthest)),
        rows_of(semantic),
        min_single,
        reference ? rows_of(*reference) : Rows{nullptr, 0},
        max_single,
        ids ? ids->data() : nullptr,
        start,
        stop,
        right ? right->data() : nullptr,
        first,
        end,
    };
    Found found;
    {
        nb::gil_scoped_release others_may_run;
        path.scan(job, found);
    }
    return nb::make_tuple(
        handed_over(std::move(found.i)), handed_over(std::move(found.j)), found.bounded, found.near);
}

nb::object dots(const Singles& rows, const Places& i, const Places& j) {
    std::vector<double> found(i.shape(0));
    {
        nb::gil_scoped_release others_may_run;
        double_dots(rows_of(rows), i.data(), j.data(), static_cast<int64_t>(found.size()), found.data());
    }
    return nb::cast(handed_over(std::move(found)));
}

}  // namespace
}  // namespace eyechart

NB_MODULE(_native, module) {
    using namespace nb::literals;
    module.attr("STAGE") = eyechart::STAGE;
    module.attr("MAX_COLUMNS") = eyechart::MAX_COLUMNS;
    module.def("available_isas", &eyechart::names);
    module.def(
        "scan",
        &eyechart::scan,
        "isa"_a,
        "codes"_a.noconvert(),
        "bound"_a,
        "semantic"_a.noconvert(),
        "min_single"_a,
        "reference"_a.noconvert().none(),
        "max_single"_a,
        "ids"_a.noconvert().none(),
        "start"_a,
        "stop"_a,
        "right"_a.noconvert().none(),
        "first"_a,
        "end"_a);
    module.def("dots", &eyechart::dots, "rows"_a.noconvert(), "i"_a.noconvert(), "j"_a.noconvert());
}
