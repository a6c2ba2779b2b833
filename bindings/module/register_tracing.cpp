// Traces of what goes through a chain.
#include "errors.hpp"
#include "register.hpp"

#include "numpy/numpy.hpp"

#include <pybind11/stl.h>

#include <algorithm>

namespace py = pybind11;

namespace ndarena::module {
namespace {

using resources::counters;
using resources::resource_ptr;
using resources::trace_event;

// A trace, and the stacks that its events name.
struct py_trace {
    std::shared_ptr<numpy::stacks> stacks;
    std::shared_ptr<resources::trace> trace;
};

std::unique_ptr<py_trace> make_trace(std::size_t most_events, unsigned frames, int log) {
    auto made = std::make_unique<py_trace>();
    if (frames != 0) {
        made->stacks = numpy::make_stacks(frames);
    }
    made->trace = std::make_shared<resources::trace>(most_events, made->stacks, log);
    return made;
}

// (time, action, address, nbytes, thread, stack) of each.
py::list as_list(const std::vector<trace_event>& events) {
    static constexpr const char* names[] = {"allocate", "free", "allocate failure"};
    const py::str actions[] = {names[0], names[1], names[2]};
    py::list list(events.size());
    for (std::size_t i = 0; i < events.size(); ++i) {
        const trace_event& e = events[i];
        list[i] = py::make_tuple(e.time, actions[static_cast<std::size_t>(e.action)], e.address,
                                 e.nbytes, e.thread, e.stack);
    }
    return list;
}

}  // namespace

void register_tracing(py::module_& m) {
    py::class_<py_trace>(m, "Trace")
        .def(py::init(&make_trace), py::arg("most_events"), py::arg("frames"), py::arg("log"))
        .def("events", [](const py_trace& t) { return as_list(t.trace->events()); })
        .def("live", [](const py_trace& t) { return as_list(t.trace->live()); })
        .def("now", [](const py_trace& t) { return t.trace->now(); })
        .def("n_dropped", [](const py_trace& t) { return t.trace->n_dropped(); })
        .def("flush", [](const py_trace& t) { return t.trace->flush(); })
        .def(
            "stack",
            [](const py_trace& t, std::uint32_t id) {
                return t.stacks == nullptr ? py::object(py::list())
                                           : steal_or_throw(t.stacks->describe(id));
            },
            py::arg("number"));
    m.def(
        "tracing_adaptor",
        [](const py_trace& into, resource_ptr upstream, std::shared_ptr<counters> counts) {
            return resource_ptr(std::make_shared<resources::tracing_adaptor>(
                into.trace, std::move(upstream), std::move(counts)));
        },
        py::arg("trace"), py::arg("upstream"), py::arg("counters"));
    m.def(
        "replay",
        [](const resource_ptr& on, const std::vector<std::uint32_t>& blocks,
           const std::vector<std::uint64_t>& sizes, std::uint32_t n_blocks) {
            std::vector<resources::replay_step> steps;
            for (std::size_t i = 0; i < std::min(blocks.size(), sizes.size()); ++i) {
                if (blocks[i] >= n_blocks) {
                    throw py::index_error("there is no such block");
                }
                steps.push_back({blocks[i], sizes[i]});
            }
            const auto result = resources::replay(*on, steps, n_blocks);
            return py::make_tuple(result.nanoseconds, result.n_failed);
        },
        py::arg("on"), py::arg("blocks"), py::arg("sizes"), py::arg("n_blocks"));
}

}  // namespace ndarena::module
