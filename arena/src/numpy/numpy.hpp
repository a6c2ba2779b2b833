// Layer 8: heaps as NumPy data-memory handlers (NEP 49).
//
// The callbacks are noexcept, call no Python API, leave the error state alone
// and may run on any thread, with or without the GIL, with an exception
// pending and while the interpreter exits. Everything that touches Python
// (making capsules, dropping them) says so and needs the GIL.
#pragma once

#include "heap/heap.hpp"

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

using PyObject = struct _object;  // NOLINT(bugprone-reserved-identifier): Python's own name

namespace ndarena::numpy {

// One opening's share in a heap. Handlers hold it too, so it lives until the
// last array made through any of them is gone.
class lease {
public:
    explicit lease(std::shared_ptr<heap::heap> h) noexcept : heap_(std::move(h)) {}
    ~lease() = default;
    lease(const lease&) = delete;
    lease& operator=(const lease&) = delete;

    heap::heap& heap() const noexcept { return *heap_; }

    // The lease of this process whose mapping holds an address, if any.
    static std::shared_ptr<lease> find(const void* address);
    static void enroll(const std::shared_ptr<lease>& made);
    // One for the heap: an enrolled one, or a new one.
    static std::shared_ptr<lease> of(std::shared_ptr<heap::heap> h);

private:
    std::shared_ptr<heap::heap> heap_;
};

// Owner of an exported buffer (a Py_buffer made with PyObject_GetBuffer and
// allocated with new). The last owner may be any thread: without the GIL the
// release waits for the next one who has it; after the interpreter has ended
// it is left to the process's end.
std::shared_ptr<void> hold_buffer(void* view);
void release_waiting_buffers() noexcept;  // needs the GIL

// One opening of an arena: closed independently of others of the same segment.
using closed_flag = std::shared_ptr<std::atomic<bool>>;

struct handler_options {
    std::uint64_t min_size = 0;  // smaller requests go to the upstream handler
    bool fallback = false;       // so do those that do not fit
};

// 0, or -1 with a Python exception set.
int import_numpy() noexcept;

// A new capsule named "mem_handler". Its upstream is the current handler, but
// never one of the same heap: entering twice cannot recurse. The capsule keeps
// the lease until it is destroyed, that is, until the last array made with it
// is gone. Null with a Python exception set.
PyObject* make_handler(std::shared_ptr<lease> held, closed_flag closed,
                       const handler_options& options);
std::int64_t live_handlers() noexcept;

// Current handler (new reference), and setting it: returns the previous one.
// Null with a Python exception set. `capsule` null means NumPy's default.
PyObject* current_handler();
PyObject* exchange_handler(PyObject* capsule);

// Redirects NumPy's default handler, hence every thread and context that has
// no handler of its own. Memory of the former default stays with it.
// `forget_retired` drops arenas that were installed once and are now empty.
bool install(std::shared_ptr<lease> held, closed_flag closed, const handler_options& options);
void uninstall();
void forget_retired();

// Name of the handler that allocated the array's data, following `.base`;
// empty if no array in the chain has one. `array` must be an ndarray.
std::string handler_name(PyObject* array);
bool is_array(PyObject* object) noexcept;
// Version numbers of the NumPy that this was compiled for.
unsigned abi_version() noexcept;
unsigned api_target() noexcept;
// Address of the array's first byte. `array` must be an ndarray.
const void* data_of(PyObject* array) noexcept;
// The block capsule under the array, which becomes a view of it if it owned
// the memory: NumPy then neither resizes nor reuses what others see. Py_None if
// the memory is not a block that can be sent, null with an exception set.
PyObject* publish(PyObject* array);
// A capsule with one reference to the block, which is the caller's until this
// succeeds. Null with a Python exception set.
PyObject* new_block(std::shared_ptr<lease> held, void* address);
// What a block capsule holds; null if it is none.
std::shared_ptr<lease> lease_of_block(PyObject* capsule, void*& address) noexcept;
// An array over part of a block, which it keeps. ValueError if it does not fit.
PyObject* array_over(PyObject* capsule, PyObject* dtype, const std::vector<std::int64_t>& shape,
                     const std::vector<std::int64_t>& strides, std::int64_t offset, bool writeable);
// Bytes from the block's start to the array's first element.
std::int64_t offset_in_block(PyObject* capsule, PyObject* array) noexcept;
// A new int64 array of shape (rows, columns); null with an exception set.
PyObject* new_table(const std::vector<std::int64_t>& values, std::int64_t columns);

}  // namespace ndarena::numpy
