include(${CMAKE_CURRENT_LIST_DIR}/ppmaTargets.cmake)
