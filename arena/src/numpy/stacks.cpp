// Where Python is, for traces.
#include "numpy/api.hpp"

#include "numpy/numpy.hpp"

#include <unordered_map>

namespace ndarena::numpy {
namespace {

// Stacks that have been seen, each once. Frames are codes, which it keeps, and lines.
class python_stacks final : public stacks {
public:
    explicit python_stacks(unsigned depth) noexcept : depth_(depth) {}
    ~python_stacks() override {  // with the GIL, like everything that holds Python objects
        for (const stack& s : known_) {
            for (const frame& f : s) {
                Py_DECREF(f.code);
            }
        }
    }
    python_stacks(const python_stacks&) = delete;
    python_stacks& operator=(const python_stacks&) = delete;

    std::uint32_t here() noexcept override {
        if (Py_IsInitialized() == 0 || PyGILState_Check() == 0) {
            return 0;  // NumPy asks for more without the GIL at times
        }
        PyObject* type = nullptr;
        PyObject* value = nullptr;
        PyObject* traceback = nullptr;
        PyErr_Fetch(&type, &value, &traceback);
        std::uint32_t found = 0;
        try {
            found = remember(walk());
        } catch (...) {  // no memory: no stack
        }
        PyErr_Restore(type, value, traceback);
        return found;
    }

    PyObject* describe(std::uint32_t id) override {
        stack s;
        {
            platform::lock_guard guard(mutex_);
            if (id != 0 && id <= known_.size()) {
                s = known_[id - 1];
            }
        }
        PyObject* list = PyList_New(0);
        for (const frame& f : s) {
            PyObject* file = PyObject_GetAttrString(f.code, "co_filename");
            PyObject* name = PyObject_GetAttrString(f.code, "co_name");
            PyObject* entry = file == nullptr || name == nullptr
                                  ? nullptr
                                  : Py_BuildValue("(OiO)", file, f.line, name);
            Py_XDECREF(file);
            Py_XDECREF(name);
            if (list == nullptr || entry == nullptr || PyList_Append(list, entry) != 0) {
                Py_XDECREF(entry);
                Py_XDECREF(list);
                return nullptr;
            }
            Py_DECREF(entry);
        }
        return list;
    }

private:
    struct frame {
        PyObject* code;
        int line;
        bool operator==(const frame& other) const noexcept {
            return code == other.code && line == other.line;
        }
    };
    using stack = std::vector<frame>;
    struct hash {
        std::size_t operator()(const stack& s) const noexcept {
            std::size_t h = s.size();
            for (const frame& f : s) {
                h = (h ^ std::hash<PyObject*>()(f.code) ^ std::hash<int>()(f.line)) *
                    0x9E3779B97F4A7C15ULL;
            }
            return h;
        }
    };

    // Innermost first; each code is a new reference.
    stack walk() const {
        stack s;
        s.reserve(depth_);
        PyFrameObject* at = PyThreadState_GetFrame(PyThreadState_Get());
        while (at != nullptr && s.size() < depth_) {
            s.push_back(
                {reinterpret_cast<PyObject*>(PyFrame_GetCode(at)), PyFrame_GetLineNumber(at)});
            PyFrameObject* back = PyFrame_GetBack(at);
            Py_DECREF(at);
            at = back;
        }
        Py_XDECREF(at);
        return s;
    }

    std::uint32_t remember(const stack& s) {
        std::uint32_t id = 0;
        bool is_new = false;
        if (!s.empty()) {
            platform::lock_guard guard(mutex_);
            const auto found = ids_.find(s);
            if (found != ids_.end()) {
                id = found->second;
            } else {
                known_.push_back(s);
                id = static_cast<std::uint32_t>(known_.size());
                ids_.emplace(s, id);
                is_new = true;
            }
        }
        if (!is_new) {  // it is kept already
            for (const frame& f : s) {
                Py_DECREF(f.code);
            }
        }
        return id;
    }

    unsigned depth_;
    platform::mutex mutex_;
    std::vector<stack> known_;
    std::unordered_map<stack, std::uint32_t, hash> ids_;
};

}  // namespace

std::shared_ptr<stacks> make_stacks(unsigned depth) {
    return std::make_shared<python_stacks>(depth);
}

}  // namespace ndarena::numpy
